"""Hard links to staging files, as ``cp -al`` and other backups by links make: they stay what they
were, and nothing that was acknowledged is lost over them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from crew import cut, visible
from support import Booted, at_each_level, outcome, send

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import SequenceError
from txstore.options import Level

DATA = bytes(range(256)) * 16


def linked(storage: Path, backup: Path) -> Path:
    """Give the one staging file a second name in a backup."""
    [staged] = (storage / ".workdir" / "staging").iterdir()
    os.link(staged, backup)
    return backup


@at_each_level
def test_transfer_goes_on_beside_a_link_to_its_staging_file(tmp_path: Path, level: Level) -> None:
    storage = tmp_path / "storage"
    one, two, three, four = cut(DATA, 4, file_id="one", name="file")
    with FileStoreManager(storage, durability=level) as store:
        send(store, [one, two])
    backup = linked(storage, tmp_path / "backup")
    before = backup.read_bytes()
    with FileStoreManager(storage, durability=level) as store:
        assert store.store_segment(three).segments_received == 3
        assert store.store_segment(four).file_result == "store"
    assert visible(storage) == {"file": DATA}
    assert backup.read_bytes() == before


@at_each_level
def test_transfer_goes_on_beside_a_link_to_its_staging_file_after_a_reboot(
    tmp_path: Path, level: Level
) -> None:
    """Its durable segments are promised, whoever goes on."""
    storage = tmp_path / "storage"
    one, two, three, four = cut(DATA, 4, file_id="one", name="file")
    with FileStoreManager(storage, durability="segment", disk=Booted("one")) as store:
        send(store, [one, two, three])
    backup = linked(storage, tmp_path / "backup")
    before = backup.read_bytes()
    with FileStoreManager(storage, durability=level, disk=Booted("two")) as store:
        assert store.store_segment(three).segments_received == 3
        assert store.store_segment(four).file_result == "store"
    assert visible(storage) == {"file": DATA}
    assert backup.read_bytes() == before


class LosingDisk(Disk):
    """A flush that fails once; the kernel forgets the bytes that it could not write."""

    loses_from: int | None = None

    def flush(self, fd: int) -> None:
        start, self.loses_from = self.loses_from, None
        if start is None:
            super().flush(fd)
        else:
            os.pwrite(fd, bytes(os.fstat(fd).st_size - start), start)
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_a_failed_flush_lost_is_not_copied_from_beside_a_link(tmp_path: Path) -> None:
    """The copy would be taken for this worker's own, and flushed as it is."""
    storage = tmp_path / "storage"
    one, two, three, four, five = cut(DATA, 5, file_id="one", name="file")
    disk = LosingDisk()
    with (
        FileStoreManager(storage, durability="segment", disk=disk) as careful,
        FileStoreManager(storage, durability="file") as other,
    ):
        send(careful, [one, two])
        other.store_segment(three)
        disk.loses_from = len(one.payload) + len(two.payload)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            careful.store_segment(three)
        linked(storage, tmp_path / "backup")
        refused = outcome(careful.store_segment, four)
        assert isinstance(refused, SequenceError), "promise 1: lost bytes are acknowledged"
        assert refused.expected == 3
        assert send(careful, [three, four, five]).file_result == "store"
    assert visible(storage) == {"file": DATA}
