"""Only who holds the journal lock writes the journal's log anew.

A manager that ends without it leaves the log alone: its holder may be writing it at that moment.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from crew import Worker, forked, segment
from seam import Pause, PausingDisk

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.options import Level


class LookersDisk(Disk):
    """Lets the log's writer go on in between, where the log is written anew; and time passes when
    there is a pause.

    :ivar meanwhile: what the writer does between the reading and the writing
    :ivar ahead: seconds that were not waited
    """

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] | None = None
        self.ahead = 0.0

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if self.meanwhile is not None and os.readlink(f"/proc/self/fd/{fd}").endswith("-wal"):
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return super().pwrite(fd, data, offset)

    def pause(self, seconds: float) -> None:
        self.ahead += 1000 * seconds


def drop(stores: list[FileStoreManager]) -> None:
    stores.clear()
    gc.collect()


def close(stores: list[FileStoreManager]) -> None:
    stores.pop().close()


def fork(_stores: list[FileStoreManager]) -> None:
    """The connection is closed for it."""
    forked(lambda: None)


@pytest.mark.parametrize("end", [drop, close, fork])
@pytest.mark.parametrize("level", ["segment", "none"])
def test_what_is_committed_while_a_manager_ends_without_the_lock_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    level: Level,
    end: Callable[[list[FileStoreManager]], None],
) -> None:
    meeting, storage = tmp_path / "meeting", tmp_path / "storage"
    meeting.mkdir()
    pause, disk = Pause(meeting), LookersDisk()
    now = time.monotonic
    with Worker(
        storage, disk=partial(PausingDisk, "UPDATE transfer", meeting), durability="none"
    ) as writer:
        for number in range(4):
            writer.store_segment(segment(f"before{number}", 1, b"x"))
        stores = [FileStoreManager(storage, durability=level, disk=disk)]
        assert len(stores[0].transfers()) == 4

        def commit() -> None:
            pause.end()
            assert writer.answer().segments_received == 2
            for number in range(4):
                writer.store_segment(segment(f"meanwhile{number}", 1, b"x"))

        writer.ask("store_segment", segment("before0", 2, b"y"))
        pause.reached()  # it has the journal lock, and its transaction is not written yet
        disk.meanwhile = commit
        monkeypatch.setattr(time, "monotonic", lambda: now() + disk.ahead)
        end(stores)
        assert disk.meanwhile is not None, "the log was written without its lock"
        disk.meanwhile = None
        commit()
        for store in stores:
            store.close()
        found = writer.call("transfers")
        writer.kill()
    with FileStoreManager(storage, durability="none") as after:
        assert after.transfers() == found
        assert len(found) == 8
