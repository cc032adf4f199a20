"""A bound on the bytes a second that a command sends."""

from __future__ import annotations

import time

from txstore.cli.interrupts import Interruption

#: Seconds after which a wait looks whether Ctrl-C was pressed.
_LOOK = 0.1


class Pace:
    """Waits after what was sent, so long that no second has more bytes than it may.

    :param rate: bytes a second; ``None``: as many as can be
    :param interruption: ends a wait
    """

    def __init__(self, rate: int | None, interruption: Interruption) -> None:
        self._rate, self._interruption = rate, interruption
        self._due = time.monotonic()

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self._rate is not None

    def segment_size(self, wanted: int) -> int:
        """Bytes in a message: a larger one would be sent at once, and waited for for long."""
        return wanted if self._rate is None else min(wanted, self._rate)

    def sent(self, size: int) -> None:
        """So many bytes were sent."""
        if self._rate is not None:
            # What was not used by now is not made up for later.
            self._due = max(self._due, time.monotonic()) + size / self._rate

    def check(self) -> None:
        """Stop here if Ctrl-C was pressed.

        :raises KeyboardInterrupt: it was
        """
        self._interruption.check()

    def wait(self) -> None:
        """Wait until there may be more.

        :raises KeyboardInterrupt: Ctrl-C was pressed
        """
        while (left := self._due - time.monotonic()) > 0:
            self._interruption.check()
            time.sleep(min(left, _LOOK))
