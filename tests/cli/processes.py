"""Commands as processes of their own, to send signals to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["CODES", "SAID", "Command"]

ROOT = Path(__file__).resolve().parents[2]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
SAID = {
    130: "edgeseg: stopped; nothing half-written was left\n",
    143: "edgeseg: terminated; nothing half-written was left\n",
}


class Command:
    """A command that runs in a process of its own, with a temporary folder of its own.

    Args:
        folder: Where it runs.
        words: Of the command line.
    """

    def __init__(self, folder: Path, *words: object) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgeseg", *map(str, words)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)},
        )

    def child(self) -> int:
        """Number of the process that does the work."""
        deadline = time.monotonic() + 20.0
        while time.monotonic() < deadline:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            if text.strip():
                return int(text.split()[0])
            time.sleep(0.01)
        raise AssertionError("the command started no process")

    def wait_until_busy(self, seconds: float = 1.0) -> None:
        """Wait until the command has used so much processor time."""
        child, deadline = self.child(), time.monotonic() + 60.0
        ticks = os.sysconf("SC_CLK_TCK")
        while time.monotonic() < deadline and self.process.poll() is None:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            if (int(fields[11]) + int(fields[12])) / ticks > seconds:
                return
            time.sleep(0.02)

    def end(self, number: int) -> tuple[int, str, float]:
        """Send a signal; returns exit code, standard error and the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        try:
            _, err = self.process.communicate(timeout=20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()  # those below it end with it
            self.process.communicate()
            raise
        return self.process.returncode, err, time.monotonic() - started

    def left(self) -> list[str]:
        """Hidden files and temporary files that are there."""
        hidden = [path.name for path in self.folder.rglob(".*")]
        return hidden + [path.name for path in self.temporary.iterdir()]
