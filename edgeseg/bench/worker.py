"""The process that measures one target: ``python -m edgeseg.bench.worker REQUEST.json ANSWER.json``.

The answer is a report, or ``{"error": {"kind": ..., "message": ...}}`` for an error that edgeseg raises on purpose. Any
other error ends with a traceback and a code other than 0.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg._signals import die_with
from edgeseg.bench.harness import measure
from edgeseg.bench.report import Settings
from edgeseg.bundle import open_bundle
from edgeseg.errors import EdgesegError
from edgeseg.files import write_text
from edgeseg.runtimes._base import RuntimeOptions

__all__ = ["answer", "main"]


def main(arguments: list[str]) -> int:
    """Read the request, measure, write the answer."""
    question, reply = (Path(argument) for argument in arguments)
    die_with(os.getppid())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request = json.loads(question.read_text(encoding="utf-8"))
    write_text(reply, json.dumps(answer(request)))
    return 0


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Measure what a request asks for; return the report, or edgeseg's error."""
    try:
        report = measure(
            open_bundle(request["bundle"], check=False),
            request["target"],
            [_picture(path) for path in request["images"]],
            options=RuntimeOptions(**request["options"]),
            settings=Settings(**request["settings"]),
            own_process=True,
        )
    except EdgesegError as error:
        return {"error": {"kind": type(error).__name__, "message": str(error)}}
    return report.to_json()


def _picture(path: str) -> Path | NDArray[np.uint8]:
    if path.endswith(".npy"):
        array: NDArray[np.uint8] = np.load(path, allow_pickle=False)
        return array
    return Path(path)


def _end_with_parent() -> None:
    """End this process with standard input, which the parent keeps open while it lives."""
    os.read(0, 1)  # not sys.stdin: its lock, held here, would be fatal at the interpreter's end
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
