"""What comes from elsewhere is shown as one line that a terminal does nothing with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeseg.text import first_line, one_line, printable, shown_name


@given(st.text(st.characters()))
def test_nothing_a_terminal_acts_on_is_left(text: str) -> None:
    shown = printable(text)
    assert all(c in "\n\t" or (ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0) for c in shown)
    shown.encode("utf-8")  # no half of a surrogate pair


def test_escapes_are_read_and_not_done() -> None:
    assert printable("a\x1b[2Jb\x9bc\u202ed\udcff") == "a\\x1b[2Jb\\x9bc\\u202ed\\udcff"
    assert printable("größe 像素\n\t") == "größe 像素\n\t"


@given(st.text(max_size=500), st.integers(1, 300))
def test_one_line_is_one_line_of_that_length(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert "\n" not in line


def test_what_is_cut_is_marked() -> None:
    assert one_line("x" * 10, 5) == "xxxx…"
    assert one_line("x" * 5, 5) == "xxxxx"
    assert len(one_line("y" * 10_000_000)) == 200


def test_the_first_line_that_says_something() -> None:
    assert first_line(ValueError("\n\n  what it is \nmore")) == "what it is"
    assert first_line(KeyError()) == "KeyError"


def test_beginnings_that_say_nothing_are_skipped_where_a_line_is_left() -> None:
    told = ValueError("Exception from core.cpp\n  Check 'false' failed\n the cause \n more")
    assert first_line(told, skip=("Exception from", "Check '")) == "the cause"
    assert first_line(ValueError("\nCheck 'false' failed"), skip=("Check '",)) == "Check 'false' failed"
    assert first_line(KeyError(), skip=("Check '",)) == "KeyError"


def test_names_are_shown_as_they_are_in_one_line() -> None:
    assert shown_name("  a  b .png") == "  a  b .png"
    assert shown_name("two\nlines\t\x1b[2J\udce9.png") == "two\\nlines\\t\\x1b[2J\\udce9.png"
    assert shown_name("x" * 50 + ".png", 10) == "…" + "x" * 5 + ".png"
