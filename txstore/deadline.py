"""How long a call may wait, for everything that it waits for together."""

from __future__ import annotations

import threading
import time


class Deadline:
    """Bounds all waiting of one call together.

    :ivar timeout: seconds that it may take
    :ivar end: when they are over, by the monotonic clock
    """

    __slots__ = ("end", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.end = time.monotonic() + timeout

    def sooner(self, most: float) -> Deadline:
        """One that ends with this one, and ``most`` seconds from now at the latest."""
        return Deadline(min(most, self.left()))

    def later(self, least: float) -> Deadline:
        """One that ends with this one, and ``least`` seconds from now at the soonest."""
        return self if self.left() >= least else Deadline(least)

    def left(self) -> float:
        """Seconds until the end; 0 when it is past."""
        return min(max(0.0, self.end - time.monotonic()), threading.TIMEOUT_MAX)
