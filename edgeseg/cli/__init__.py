"""The command line: one file per command, heavy imports inside them, one sentence and an exit code per error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from edgeseg import _signals, files
from edgeseg.cli.supervisor import STOPPED, Reporter, supervise
from edgeseg.text import one_line, os_reason

__all__ = ["main", "run"]

_PACKAGE = Path(__file__).parents[1]
_SEVERAL = ("--target", "-t")
_TAKE_SEVERAL = ("export", "verify", "benchmark")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line in a child process (`supervise`) and exit with the code that `edgeseg.errors` lists."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    supervise(lambda reporter: run(words, reporter))


def run(arguments: list[str], reporter: Reporter | None = None) -> int:
    """Run the command line in this process and return its exit code.

    Args:
        arguments: Words after the command's name.
        reporter: Reports what must be removed if this process is killed.
    """
    _escape_what_a_stream_cannot_show()
    with _own_warnings_as_notes(), _signals.watch_signals() as signals:
        sentence, code = "", 0
        try:
            if reporter is not None:
                files.observe_partials(reporter.partial)
                signals.on_settle, signals.on_process = reporter.settled, reporter.process
                reporter.ready()
            sentence, code = _run(arguments)
        except KeyboardInterrupt:
            code = _signals.INTERRUPTED
        except _signals.Terminated:
            code = _signals.TERMINATED
        except BaseException:
            if signals.number is None:
                raise
        if signals.number is None:
            sentence, code = _flushed(sentence, code)
        if signals.number is not None:  # whatever exception it became on the way
            code = _signals.exit_code_of(signals.number)
            files.discard_partials()
    sentence = STOPPED.get(code, sentence)
    if sentence:
        _say(sentence)
    return code


def _run(arguments: list[str]) -> tuple[str, int]:
    """Run a command; return the sentence for standard error (empty where there is none) and the exit code."""
    import typer

    from edgeseg.cli.app import app
    from edgeseg.errors import EdgesegError

    try:
        code = app(spread_targets(arguments), standalone_mode=False, prog_name="edgeseg")
    except EdgesegError as error:
        return str(error), error.exit_code
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except _usage_errors() as error:
        return _usage_sentence(error), int(getattr(error, "exit_code", 2))
    except BrokenPipeError:
        _give_up_stdout()
        return "", 0
    except MemoryError:
        return "out of memory; use a smaller size or batch", 1
    except OSError as error:
        return _os_sentence(error), 8
    return "", int(code or 0)


def _usage_errors() -> tuple[type[Exception], ...]:
    """List typer's errors for a wrong command line: click's classes up to 0.28 (Python 3.10), its own since."""
    import typer

    own = getattr(typer, "TyperException", None)
    if own is not None:
        return (own,)
    import click

    return (click.ClickException,)


def _usage_sentence(error: Exception) -> str:
    """Say what is wrong and where to look; empty where the help was printed instead of an error."""
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "edgeseg")
    message = str(getattr(error, "format_message", error.__str__)())
    return message and f"{message[:1].lower()}{message[1:].rstrip('.')}; see {command} --help"


def _say(sentence: str) -> None:
    if sys.stderr is not None:  # else `print` would take standard output
        print(f"edgeseg: {one_line(sentence, 2100)}", file=sys.stderr)


def _flushed(sentence: str, code: int) -> tuple[str, int]:
    """Write out what waits for standard output. A full disk behind it is an error, a reader that has gone is none."""
    if sys.stdout is None:  # closed before the start
        return sentence, code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
    except OSError as error:
        _give_up_stdout()
        return f"cannot write to standard output: {os_reason(error)}; free space", 8
    return sentence, code


def _give_up_stdout() -> None:
    """Redirect standard output to nothing, since its reader has gone."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _own_warnings_as_notes() -> Iterator[None]:
    """Print what edgeseg warns of as one line, without the place in its code."""
    show = warnings.showwarning

    def show_own(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not Path(filename).is_relative_to(_PACKAGE):
            show(message, category, filename, lineno, file, line)
        elif sys.stderr is not None:
            print(f"note: {one_line(message, 1000)}", file=sys.stderr)

    warnings.showwarning = show_own
    try:
        yield
    finally:
        warnings.showwarning = show


def _escape_what_a_stream_cannot_show() -> None:
    """Write characters that the terminal's encoding lacks as escapes, instead of ending in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _os_sentence(error: OSError) -> str:
    where = f" '{error.filename}'" if error.filename else ""
    return f"the system refused{where}: {os_reason(error)}"


def spread_targets(arguments: list[str]) -> list[str]:
    """Let ``--target ort openvino`` mean ``--target ort --target openvino``.

    Words after the flag are taken as long as they are targets or nearly so, and name no existing file. Commands that
    run on one target get their words as they stand.

    Example:
        >>> spread_targets(["export", "enet", "--target", "ort", "openvino"])
        ['export', 'enet', '--target', 'ort', '--target', 'openvino']
    """
    if next((word for word in arguments if not word.startswith("-")), "") not in _TAKE_SEVERAL:
        return arguments
    words: list[str] = []
    inside = False
    for index, word in enumerate(arguments):
        if index and inside and not word.startswith("-") and arguments[index - 1] not in _SEVERAL:
            if _looks_like_target(word):
                words.append("--target")
            else:
                inside = False
        elif word.startswith("-"):
            inside = word in _SEVERAL or word.startswith("--target=")
        words.append(word)
    return words


def _looks_like_target(word: str) -> bool:
    import difflib
    from pathlib import Path

    from edgeseg.runtimes.registry import engines, refused_engines

    known = [known.lower() for record in engines() for known in record.words]
    known += map(str.lower, refused_engines())  # so that what is wrong with one is said
    if word.lower() in known:
        return True
    return bool(difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.75)) and not Path(word).exists()
