"""A world in which the same workload does the same things twice: time, random names, folders."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

#: Where states are built: in memory if there is such a place.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

_TICK = 0.001


class Clock:
    """Wall clock and boot-time clock, which go on a little at every look."""

    def __init__(self, wall: float = 1.8e9, ticks: float = 10_000.0) -> None:
        self.wall, self.ticks = wall, ticks

    def go_on(self, seconds: float) -> None:
        self.wall += seconds
        self.ticks += seconds

    def time(self) -> float:
        self.go_on(_TICK)
        return self.wall

    def gettime(self, _clock: int) -> float:
        return self.ticks


@contextmanager
def fixed(seed: str, clock: Clock) -> Iterator[None]:
    """Time is ``clock``'s, and names come from ``seed``."""
    names = random.Random(seed)

    def token(size: int = 16) -> str:
        return f"{names.getrandbits(8 * size):0{2 * size}x}"

    def identity() -> uuid.UUID:
        return uuid.UUID(int=names.getrandbits(128), version=4)

    with (
        mock.patch.object(time, "time", clock.time),
        mock.patch.object(time, "clock_gettime", clock.gettime),
        mock.patch.object(secrets, "token_hex", token),
        mock.patch.object(uuid, "uuid4", identity),
    ):
        yield


class Folders:
    """Empty folders, one after another, each removed when the next is asked for."""

    def __init__(self) -> None:
        self._top = tempfile.mkdtemp(prefix="txstore-crash-", dir=SCRATCH)
        self._count = 0

    @contextmanager
    def one(self) -> Iterator[str]:
        self._count += 1
        path = os.path.join(self._top, str(self._count))
        os.mkdir(path)
        try:
            yield path
        finally:
            shutil.rmtree(path)

    def close(self) -> None:
        shutil.rmtree(self._top)
