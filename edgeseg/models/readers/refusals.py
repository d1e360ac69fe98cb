"""Why a file is not read: a reason and what to do, which the door (`read_checkpoint`) makes one sentence of."""

from __future__ import annotations

from typing import BinaryIO

from edgeseg.text import one_line

__all__ = ["AGAIN", "RESAVE", "UnreadableError", "damaged", "read_exactly"]

AGAIN = "download or copy it again"
RESAVE = "re-save its state dict where you trust it: torch.save(model.state_dict(), 'weights.pth')"


class UnreadableError(Exception):
    """A checkpoint that is not read.

    Args:
        reason: Follows the file's name in a sentence, such as ``"is a web page"``.
        advice: What to do.
    """

    def __init__(self, reason: str, advice: str = AGAIN) -> None:
        self.reason, self.advice = reason, advice
        super().__init__(f"{reason}; {advice}")


def damaged(why: object) -> UnreadableError:
    """Return the refusal of a file whose bytes contradict each other, with what was found."""
    return UnreadableError(f"is damaged or truncated ({one_line(why, 160)})")


def read_exactly(stream: BinaryIO, start: int, count: int) -> bytes:
    """Read `count` bytes at `start`; the caller compared them with the file's size.

    Raises:
        UnreadableError: The file ends before.
    """
    stream.seek(start)
    found = stream.read(count)
    if len(found) != count:
        raise damaged(f"it ends {count - len(found)} bytes early")
    return found
