"""The next run removes what a killed process left, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.files import write_text
from tests.files.listing import names_in

ROOT = Path(__file__).resolve().parents[2]


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeseg.files import Partial, scratch_folder
target = Path(sys.argv[1])
file, folder = Partial(target / "f"), Partial(target / "made", folder=True)
file.path.write_text("half")
(folder.path / "half").write_text("half")
with scratch_folder("edgeseg-benchmark") as scratch:
    (scratch / "half").write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="locks and signals are POSIX's")
def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(names_in(tmp_path)) == 3
        _write_in_a_new_process(tmp_path / "other")  # the one that lives keeps its own
        assert len(names_in(tmp_path)) == 4
        process.communicate("")
    assert process.returncode == -signal.SIGKILL
    assert len(names_in(tmp_path)) == 4
    _write_in_a_new_process(tmp_path / "f")
    assert names_in(tmp_path) == ["f", "other"]


def _write_in_a_new_process(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeseg.files import write_text; write_text(Path(sys.argv[1]), 'x')"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)


def test_nothing_that_only_looks_like_ours_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".f.edgeseg-abcdefgh").symlink_to(outside)
    (folder / "f.edgeseg-abcdefgh").write_text("no dot")
    (folder / ".f.edgeseg-ABCDEFGH").write_text("other letters")
    (folder / ".f.edgeseg-aaaaaaaa").write_text("of somebody else")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    write_text(folder / "g", "x")
    assert len(names_in(folder)) == 5
    assert (outside / "kept").is_file()


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    """Where the system cannot exchange two paths: the old folder lies aside, the new one is not in its place yet."""
    (tmp_path / ".made.edgeseg-abcdefgh").mkdir()
    (tmp_path / ".made.edgeseg-abcdefgh.old").mkdir()
    (tmp_path / ".made.edgeseg-abcdefgh.old" / "old").write_text("old")
    write_text(tmp_path / "f", "x")
    assert names_in(tmp_path) == ["f", "made"]
    assert names_in(tmp_path / "made") == ["old"]
