"""A folder with the name and the number of one that is gone is another: it is flushed too."""

from __future__ import annotations

import os

from crash.oracle import broken
from crash.scenes import acks, scene
from crash.search import states
from crash.steps import Open, Send, upload
from crash.workloads import twin_of
from txstore.testing.disk import SimulatedDisk
from txstore.testing.powerloss import Platter

FIRST = upload("d", "d/one.bin", 900)
#: Under the same locks, whose files would get the number of the folder otherwise.
SECOND = twin_of(FIRST, "d/two", 800)


def remove(disk: SimulatedDisk, storage: str) -> None:
    """Somebody takes the first file away, with its folder."""
    top = disk.open_folder(storage)
    folder = disk.open_folder("d", dir_fd=top)
    disk.unlink("one.bin", dir_fd=folder)
    disk.close(folder)
    disk.remove_folder("d", dir_fd=top)
    disk.flush_folder(top)
    disk.close(top)


def test_a_folder_with_the_number_of_one_that_is_gone_is_flushed() -> None:
    with scene("numbers") as (session, disk):
        session.do(Open())
        session.do(Send(FIRST, 1))
        remove(disk, session.storage)
        session.do(Send(SECOND, 1))
    for state in states(disk.log, Platter(), (), "numbers", randoms=4, only={max(acks(disk.log))}):
        if state.tree.file(os.path.join("storage", SECOND.name)) != SECOND.content:
            raise broken(1, f"{SECOND.name} was acked as stored, and is lost at {state.label}")
