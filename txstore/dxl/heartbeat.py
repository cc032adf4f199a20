"""Signs of life of a process that serves."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds between two signs of life, at least.
BEAT_EVERY = 1.0


class Heartbeat:
    """Called as often as one likes, says so now and then.

    The thread that looks after the connection calls it on each of its rounds.  These need the
    processor, the interpreter's lock and the fabric's library, as every answer does.  They need no
    disk: a worker whose requests wait for a slow one goes on giving signs of life.

    :param say: tells whoever watches
    """

    def __init__(self, say: Callable[[], object]) -> None:
        self._say = say
        self._due = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + BEAT_EVERY
            self._say()
