"""The command line: one file per command, heavy imports inside them, one sentence and an exit code per error."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

__all__ = ["main"]

_SEVERAL = ("--target", "-t")
_TAKE_SEVERAL = ("export", "verify", "benchmark")
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code `edgeseg.errors` lists."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _say("stopped; nothing half-written was left", INTERRUPTED)
    except _Terminated:
        return _say("terminated; nothing half-written was left", TERMINATED)
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _run(arguments: list[str]) -> int:
    import typer

    from edgeseg.cli.app import app
    from edgeseg.errors import EdgesegError

    try:
        code = app(spread_targets(arguments), standalone_mode=False, prog_name="edgeseg")
    except EdgesegError as error:
        return _say(str(error), error.exit_code)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except _usage_errors() as error:
        sentence = _usage_sentence(error)
        return _say(sentence, int(getattr(error, "exit_code", 2))) if sentence else 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except MemoryError:
        return _say("out of memory; use a smaller size or batch", 1)
    except OSError as error:
        return _say(_os_sentence(error), 8)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this number without a word
        raise KeyboardInterrupt
    return int(code or 0)


def _usage_errors() -> tuple[type[Exception], ...]:
    """What typer raises for a wrong command line: click's classes up to 0.28 (Python 3.10), its own since."""
    import typer

    own = getattr(typer, "TyperException", None)
    if own is not None:
        return (own,)
    import click

    return (click.ClickException,)


def _usage_sentence(error: Exception) -> str:
    """What is wrong and where to look; empty where the help was printed instead of an error."""
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "edgeseg")
    told = str(getattr(error, "format_message", error.__str__)())
    return told and f"{told[:1].lower()}{told[1:].rstrip('.')}; see {command} --help"


class _Terminated(BaseException):
    """SIGTERM arrived; unwinds like Ctrl-C so that temporary files go."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _say(sentence: str, code: int) -> int:
    print(f"edgeseg: {sentence}", file=sys.stderr)
    return code


def _os_sentence(error: OSError) -> str:
    where = f" '{error.filename}'" if error.filename else ""
    return f"the system refused{where}: {(error.strerror or str(error)).lower()}"


def spread_targets(arguments: list[str]) -> list[str]:
    """Let ``--target ort openvino`` mean ``--target ort --target openvino``.

    Words after the flag are taken as long as they are targets or nearly so, and name no existing file. Commands that
    run on one target get their words as they stand.
    """
    if next((word for word in arguments if not word.startswith("-")), "") not in _TAKE_SEVERAL:
        return arguments
    spread: list[str] = []
    inside = False
    for index, word in enumerate(arguments):
        if index and inside and not word.startswith("-") and arguments[index - 1] not in _SEVERAL:
            if _looks_like_target(word):
                spread.append("--target")
            else:
                inside = False
        elif word.startswith("-"):
            inside = word in _SEVERAL
        spread.append(word)
    return spread


def _looks_like_target(word: str) -> bool:
    import difflib
    from pathlib import Path

    from edgeseg.targets import ALIASES, TARGETS

    known = [*TARGETS, *ALIASES]
    if word.lower() in known:
        return True
    return bool(difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.75)) and not Path(word).exists()
