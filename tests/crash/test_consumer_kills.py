"""A consumer that is killed again and again sees each file at least once, and all in order."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from crew import last
from seam import KillingDisk
from support import FULL

from txstore import FileStoreManager

pytestmark = pytest.mark.promise(1)

KILLS = 100 if FULL else 20
#: About as many operations as it makes before it has opened the store and read some events.
OPERATIONS = 180


def _live(storage: Path, kill_at: int, seen: Path) -> bool:
    """A consumer reads all there is, and writes down each number before it is done with it.

    :return: whether it was killed
    """
    child = os.fork()
    if child == 0:
        try:
            written = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            store = FileStoreManager(storage, disk=KillingDisk(kill_at))
            for event in store.events("index"):
                os.write(written, b"%d\n" % event.sequence)
                event.done()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_consumer_that_is_killed_sees_each_file_and_in_order(
    storage: Path, tmp_path: Path
) -> None:
    picker, stored, killed, newest = random.Random("consumer"), 0, 0, 0
    lives: list[list[int]] = []
    with FileStoreManager(storage) as store:
        while killed < KILLS:
            for _ in range(picker.randint(0, 3)):
                stored += 1
                name = f"file{stored}"
                store.store_segment(last(name, 1, b"x", name, b"x"))
            seen = tmp_path / f"life{len(lives)}"
            killed += _live(storage, picker.randint(1, OPERATIONS), seen)
            told = seen.read_text().split() if seen.exists() else []
            lives.append([int(number) for number in told])
        seen_last = [event.sequence for event in store.events("index")]
        events = len(list(store.events()))
    assert events == stored
    for life in [*lives, seen_last]:
        # From the first that it is not done with: none is left out, and none is out of order.
        if life:
            assert life[0] <= newest + 1, f"{life} after {newest}"
            assert life == list(range(life[0], life[0] + len(life)))
            newest = life[-1]
    assert newest == stored
    assert sum(map(len, lives)) > KILLS / 2, lives
