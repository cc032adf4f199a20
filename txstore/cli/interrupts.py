"""Ctrl-C, in each stage of a command.  Importing this is cheap: it is there before all else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

#: exit code of a command that Ctrl-C stopped
INTERRUPTED = 130

_CLEAR_LINE = "\r\x1b[2K"


def end_at_once(_number: int, _frame: FrameType | None) -> None:
    """For the stages in which nothing is under way that could be cut off."""
    os._exit(INTERRUPTED)


def on_ctrl_c(handler: Callable[[int, FrameType | None], object]) -> None:
    """What Ctrl-C does from now on."""
    # Anything else was set by somebody who wants it otherwise (a shell's background job).
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, end_at_once):
        signal.signal(signal.SIGINT, handler)


def raise_on_ctrl_c() -> None:
    """From now on Ctrl-C is a ``KeyboardInterrupt``: something is under way that is to be let go
    of.  To be called after the imports that this needs, in whose middle it might be lost."""
    on_ctrl_c(signal.default_int_handler)


class Interruption:
    """Ctrl-C takes effect between two steps, where nothing is under way; a second one at once."""

    def __init__(self) -> None:
        #: whether Ctrl-C was pressed
        self.came = False

    def __enter__(self) -> Interruption:
        on_ctrl_c(self._remember)
        return self

    def __exit__(self, *unused: object) -> None:
        if signal.getsignal(signal.SIGINT) == self._remember:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Stop here if Ctrl-C was pressed."""
        if self.came:
            raise KeyboardInterrupt

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.came = True
        signal.signal(number, signal.default_int_handler)
        # The step may be a long one: it waits up to half a minute for another process.
        _tell("Stopping after this step. Ctrl-C again stops at once.")


def _tell(text: str) -> None:
    """Print a line on standard error from a handler, which may have cut off another print."""
    # Not descriptor 2, which is any file where the command was started without standard error.
    if sys.__stderr__ is None:
        return
    with suppress(OSError, ValueError):
        descriptor = sys.__stderr__.fileno()
        start = _CLEAR_LINE if os.isatty(descriptor) else ""
        os.write(descriptor, f"{start}{text}\n".encode())
