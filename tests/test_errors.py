"""Messages of errors: one line, visible, of a size to be read, and what the tree promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg import errors
from edgeseg.errors import EdgesegError, StorageError, UnknownNameError, UsageError
from edgeseg.text import printable

KINDS = [getattr(errors, name) for name in errors.__all__ if name != "UnknownNameError"]


@pytest.mark.parametrize("kind", KINDS)
def test_escapes_are_shown_and_not_done(kind: type[EdgesegError]) -> None:
    error = kind("cannot read '\x1b]0;title\x07\x1b[2J\x9b31m\u202e\nedgeseg: fine\udcff': größe 像素\tx")
    sentence = r"cannot read '\x1b]0;title\x07\x1b[2J\x9b31m\u202e\nedgeseg: fine\udcff': größe 像素" + "\tx"
    assert str(error) == sentence
    assert error.args == (sentence,)


@given(st.text(st.characters()))
def test_every_message_is_one_line_of_visible_characters(text: str) -> None:
    message = str(EdgesegError(text))
    assert message == printable(message)
    assert "\n" not in message


def test_long_messages_keep_what_was_got_and_what_to_do() -> None:
    message = str(UsageError("got " + "x" * 1_000_000 + "; do this"))
    assert len(message) <= 2010
    assert message.startswith("got xxx")
    assert " … " in message
    assert message.endswith("x; do this")
    assert str(UsageError("x" * 2000)) == "x" * 2000


def test_the_tree_is_as_the_docstring_draws_it() -> None:
    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        kind = getattr(errors, name)
        (line,) = [line for line in drawn.splitlines() if f" {name} " in f" {line.replace('├── ', '').strip()} "]
        assert str(kind.exit_code) in line.split()
    assert issubclass(UsageError, ValueError)
    assert EdgesegError().args == ("",)
    assert str(EdgesegError(StorageError("a"))) == "a"


def test_unknown_names_of_any_length_and_content() -> None:
    near = UnknownNameError("class", "road\x1b[2J", ["road\x1b[2K", "sky"])
    assert str(near) == r"unknown class 'road\x1b[2J': did you mean 'road\x1b[2K'?"
    assert near.known == ["road\x1b[2K", "sky"]
    long = UnknownNameError("class", "y" * 1_000_000, ["x" * 1_000_000, "sky"])
    assert len(str(long)) < 500
    assert str(long).endswith("…, sky.") or str(long).endswith("….")
