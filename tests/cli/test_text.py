"""What a terminal would act on never reaches it, whichever command shows a name, and whatever the name is."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import Bundle
from edgeseg.cli import _shared
from edgeseg.cli._shared import json_text, plain_console, table
from edgeseg.text import printable
from tests.bench.samples import a_machine, a_report, latencies
from tests.cli.conftest import Edgeseg, Ended
from tests.runtimes.bundles import changed, make_tiny_bundle, picture

NASTY = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\nfake"
SHOWN = r"\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil"

posix = pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not have")


def assert_harmless(done: Ended) -> None:
    for text in (done.out, done.err):
        assert text == printable(text)
        assert not any(line.startswith("fake") for line in text.splitlines())


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Every text of its manifest, and its folder, is meant for the terminal."""
    folder = make_tiny_bundle(tmp_path, targets=("ort",)).path
    renamed = folder.rename(tmp_path / f"{NASTY}.edgeseg")
    from edgeseg.bundle import open_bundle

    labels = tuple(f"{index}{NASTY}[/red]:smile:" for index in range(4))
    return changed(open_bundle(renamed), name=NASTY, network=NASTY, labels=labels)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a good picture and a broken one, and ``labels`` beside it."""
    folder, labels = tmp_path / "in", tmp_path / "labels"
    for path in (folder, labels):
        path.mkdir()
    cv2.imwrite(str(folder / "a.png"), picture((40, 60)))
    cv2.imwrite(str(labels / "a.png"), np.zeros((40, 60), np.uint8))
    (folder / f"{NASTY}.png").write_bytes(b"not a picture")
    (labels / f"{NASTY}.png").write_bytes(b"not a picture")
    return folder


@posix
@pytest.mark.parametrize("more", [[], ["--json"], ["--quiet"]])
def test_predict(bundle: Bundle, pictures: Path, tmp_path: Path, edgeseg: Edgeseg, more: list[str]) -> None:
    done = edgeseg("predict", bundle.path, pictures, "--out", tmp_path / NASTY, *more)
    assert done.code == 9, done.err
    assert_harmless(done)
    assert done.err.count(SHOWN) >= 1
    alone = edgeseg("predict", bundle.path, pictures / f"{NASTY}.png", "--out", tmp_path / NASTY, *more)
    assert alone.code == 7
    assert_harmless(alone)
    if more == ["--json"]:
        lines = [json.loads(line) for line in done.out.splitlines()]
        assert {line["source"] for line in lines} == {str(path) for path in pictures.iterdir()}


@posix
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_verify(bundle: Bundle, pictures: Path, edgeseg: Edgeseg, more: list[str]) -> None:
    done = edgeseg("verify", bundle.path, *more)
    assert done.code == 0, done.err
    assert_harmless(done)
    if more:
        assert json.loads(done.out)["bundle"] == str(bundle.path)
    else:
        assert SHOWN in done.out
    unknown = edgeseg("verify", bundle.path, "--target", NASTY)
    assert unknown.code == 2
    assert SHOWN in unknown.sentence
    assert_harmless(unknown)
    (bundle.path / "model.onnx").unlink()
    damaged = edgeseg("verify", bundle.path, *more)
    assert damaged.code == 5
    assert SHOWN in damaged.sentence
    assert_harmless(damaged)


@posix
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_eval(bundle: Bundle, pictures: Path, edgeseg: Edgeseg, more: list[str]) -> None:
    done = edgeseg("eval", bundle.path, "--images", pictures, "--labels", pictures.parent / "labels", *more)
    assert done.code == 9, done.err
    assert_harmless(done)
    assert SHOWN in done.err
    if not more:
        rows = [line for line in done.out.splitlines() if SHOWN in line]
        assert [row[0] for row in rows] == ["0", "1", "2", "3"]
        assert all("fake[/red]:smile:" in row for row in rows)


@posix
def test_benchmark(bundle: Bundle, tmp_path: Path, edgeseg: Edgeseg) -> None:
    few = ("--in-process", "--min-samples", 2, "--max-samples", 2, "--seconds", 0)
    done = edgeseg("benchmark", bundle.path, *few, "--save", tmp_path / "a.json")
    assert done.code == 0, done.err
    assert_harmless(done)
    assert SHOWN in done.out
    assert SHOWN in done.err
    assert edgeseg("benchmark", "compare", tmp_path / "a.json", tmp_path / "a.json", "--max-regression", 1e9).code == 0


@posix
def test_benchmark_compare(tmp_path: Path, edgeseg: Edgeseg) -> None:
    """A report is a file like any other: what it calls bundles, machines and targets was written elsewhere."""
    from edgeseg.bench import save_reports

    for name, machine in (("a", "x"), ("b", NASTY)):
        reports = [a_report({"total": latencies(10.0)}, name=NASTY, machine=a_machine(cpu=machine))]
        save_reports(tmp_path / f"{name}.json", reports)
    done = edgeseg("benchmark", "compare", tmp_path / "a.json", tmp_path / "b.json", "--any-machine")
    assert_harmless(done)
    assert SHOWN in done.out


@pytest.mark.parametrize(
    "words",
    [
        ["verify", NASTY],
        ["models", NASTY],
        ["export", NASTY],
        ["predict", "x", "y", f"--{NASTY}"],
        ["sign", NASTY, "--key", NASTY],
        [NASTY],
    ],
)
def test_words_of_the_command_line(words: list[str], edgeseg: Edgeseg) -> None:
    done = edgeseg(*words)
    assert done.code in (2, 5), done.err
    assert_harmless(done)
    assert SHOWN in done.sentence


@given(st.text(st.characters()))
def test_a_console_writes_nothing_a_terminal_acts_on(text: str) -> None:
    from rich.text import Text

    file = io.StringIO()
    screen = plain_console(file=file, width=100)
    listed = table("title", text)
    listed.add_row(text, Text(text))
    for thing in (text, listed, Text(text), [text], {text: text}):
        screen.print(thing)
    assert printable(file.getvalue()) == file.getvalue()


def test_on_a_terminal_only_the_console_itself_sends_escapes() -> None:
    file = io.StringIO()
    plain_console(file=file, force_terminal=True, color_system="standard", width=100).print(NASTY, style="bold red")
    assert file.getvalue() == f"\x1b[1;31m{SHOWN}\x1b[0m\n\x1b[1;31mfake\x1b[0m\n"


def test_text_is_no_markup() -> None:
    for screen in (_shared.console(), _shared.errors()):
        with screen.capture() as caught:
            screen.print("[red]a[/red] [/] :smile: [link=https://x]b[/link]")
        assert caught.get() == "[red]a[/red] [/] :smile: [link=https://x]b[/link]\n"


_JSON = st.recursive(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(), lambda s: st.lists(s))


@given(_JSON, st.booleans(), st.sampled_from([None, 2]))
def test_json_loads_as_it_was_and_holds_nothing_to_act_on(data: object, ascii_only: bool, indent: int | None) -> None:
    text = json_text({"a": data}, ascii_only=ascii_only, indent=indent)
    assert json.loads(text) == {"a": data}
    assert printable(text) == text
    assert text.isascii() or not ascii_only


def test_json_of_names_that_are_no_text() -> None:
    name = os.fsdecode(b"gr\xc3\xb6\xff\x7f\x1b") + "\u202e\u061c\x9b"
    text = json_text(name)
    assert text == r'"grö\udcff\u007f\u001b\u202e\u061c\u009b"'
    assert json.loads(text) == name


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_output_that_is_not_utf8(encoding: str, tmp_path: Path) -> None:
    """A table and JSON, in a process of their own, on a stream that lacks what they hold."""
    code = (
        "from edgeseg.cli import _escape_what_a_stream_cannot_show as lenient; lenient()\n"
        "from edgeseg.cli._shared import console, print_json, table\n"
        "made = table('größe 像素'); made.add_row('\\u4e00 \\udcff'); console().print(made)\n"
        "print_json({'größe': '像素'})\n"
    )
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    title, row, last = done.stdout.decode(encoding).splitlines()
    assert json.loads(last) == {"größe": "像素"}
    assert last.isascii() == (encoding != "utf-8")
    assert ("像素" in title) == (encoding == "utf-8")
    assert r"\udcff" in row
