"""Promise 7 where a manager keeps a transfer in hand: anyone may have gone on with it meanwhile.

A manager that takes one segment after the other does not read the transfer's row each time; it
knows by the lock's file whether anybody else held the lock in between.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from crew import forked
from support import at_each_level, claim, everything, message, opened_stores

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import SequenceError
from txstore.local.locks import stripe_of
from txstore.options import Level
from txstore.testing import FaultPlan, FaultyDisk

ONE = "one"
#: An id whose lock is that of ``ONE``.
TWIN = next(str(n) for n in range(10_000) if stripe_of(str(n).encode()) == stripe_of(b"one"))


def part(number: int) -> bytes:
    """Some are empty: their staging file does not tell that they came."""
    return bytes([number]) * (700 if number % 3 == 1 else 0)


def take(store: FileStoreManager, file_id: str, number: int) -> None:
    sent = message(part(number), file_id=file_id, segment_number=str(number))
    assert store.store_segment(sent).segments_received == number


def finish(store: FileStoreManager, file_id: str, number: int) -> None:
    data = b"".join(map(part, range(1, number + 1)))
    fields = {"file_id": file_id, "segment_number": str(number), **claim(data, file_id)}
    assert store.store_segment(message(part(number), **fields)).file_result == "store"
    assert Path(store.storage_dir, file_id).read_bytes() == data


@at_each_level
def test_segments_that_another_took_meanwhile_are_built_on(tmp_path: Path, level: Level) -> None:
    with opened_stores(tmp_path) as open_store:
        first, second = open_store(level), open_store(level)
        for number in range(1, 8, 3):
            take(first, ONE, number)
            take(first, ONE, number + 1)
            take(second, ONE, number + 2)
        finish(first, ONE, 10)


@at_each_level
def test_another_transfer_under_the_same_lock_hides_nothing(tmp_path: Path, level: Level) -> None:
    """Taking up the one transfer again must not make what is known of the other look current."""
    with opened_stores(tmp_path) as open_store:
        first, second = open_store(level), open_store(level)
        for one in (ONE, TWIN):
            take(first, one, 1)
        for one in (ONE, TWIN):
            take(second, one, 2)
        for one in (ONE, TWIN):
            take(first, one, 3)
        for one in (ONE, TWIN):
            finish(first, one, 4)


@at_each_level
def test_a_transfer_that_another_ended_is_begun_anew(tmp_path: Path, level: Level) -> None:
    with opened_stores(tmp_path) as open_store:
        first, second = open_store(level), open_store(level)
        for end in (lambda: second.cancel(ONE), lambda: finish(second, ONE, 3)):
            take(first, ONE, 1)
            take(first, ONE, 2)
            end()
            take(first, ONE, 1)
            take(second, ONE, 2)
            finish(first, ONE, 3)


@at_each_level
def test_both_sides_of_a_fork_see_what_the_other_took(tmp_path: Path, level: Level) -> None:
    with opened_stores(tmp_path) as open_store:
        store = open_store(level)
        take(store, ONE, 1)
        take(store, ONE, 2)
        forked(take, store, ONE, 3)
        take(store, ONE, 4)
        forked(take, store, ONE, 5)
        finish(store, ONE, 6)


class FailingDisk(Disk):
    """Fails the flushes while it is told to."""

    failing = False

    def flush(self, fd: int) -> None:
        if self.failing:
            raise OSError(errno.EIO, "the disk failed")
        super().flush(fd)


@pytest.mark.parametrize("level", ["segment", "file"])
def test_a_cancel_that_failed_half_way_leaves_nothing_to_go_on_with(
    tmp_path: Path, level: Level
) -> None:
    disk = FailingDisk()
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        take(store, ONE, 1)
        take(store, ONE, 2)
        disk.failing = True
        with pytest.raises(OSError, match="the disk failed"):
            store.cancel(ONE)
        disk.failing = False
        store.cancel(ONE)
        with pytest.raises(SequenceError):
            take(store, ONE, 3)
        take(store, ONE, 1)
        finish(store, ONE, 2)


@pytest.mark.parametrize("level", ["segment", "file"])
def test_a_segment_whose_flush_failed_comes_again_and_is_built_on(
    tmp_path: Path, level: Level
) -> None:
    """The same one, or another in its place: nobody was told of the first."""
    disk = FailingDisk()
    with opened_stores(tmp_path) as open_store:
        store = open_store("segment", disk=disk)
        for number in (1, 2, 3):
            take(store, ONE, number)
        disk.failing = True
        sent = message(b"other bytes", file_id=ONE, segment_number="4")
        with pytest.raises(OSError, match="the disk failed"):
            store.store_segment(sent)
        disk.failing = False
        assert [one.segments_received for one in store.transfers()] == [3]
        take(open_store(level), ONE, 4)
        take(store, ONE, 5)
        finish(store, ONE, 6)


class UnsignedDisk(Disk):
    """Lock files have no space for a holder's name."""

    def sign(self, fd: int, token: bytes, offset: int) -> None:
        raise OSError(errno.ENOSPC, f"{len(token)} bytes at {offset} of {fd}: no space left")


@at_each_level
def test_lock_files_that_cannot_be_signed_cost_nothing_but_time(
    tmp_path: Path, level: Level
) -> None:
    with opened_stores(tmp_path) as open_store:
        first, second = (open_store(level, disk=UnsignedDisk()) for _ in range(2))
        for number in range(1, 5, 2):
            take(first, ONE, number)
            take(second, ONE, number + 1)
        finish(first, ONE, 5)


@at_each_level
def test_who_cannot_sign_the_locks_file_leaves_nothing_to_go_on_with(
    tmp_path: Path, level: Level
) -> None:
    """Whoever held the lock before must not find its own signature, and take its row for current.

    As on a full disk that copies what it writes, or beyond a quota.
    """
    faults = FaultPlan()
    faults.fail("sign", errno.ENOSPC, forever=True)
    with opened_stores(tmp_path) as open_store:
        first, second = open_store(level), open_store(level, disk=FaultyDisk(faults))
        for number in range(1, 8, 3):
            take(first, ONE, number)
            take(first, ONE, number + 1)
            take(second, ONE, number + 2)
            with pytest.raises(SequenceError):
                take(first, ONE, number + 1)
        finish(first, ONE, 10)


@at_each_level
def test_who_can_neither_sign_nor_empty_the_locks_file_does_not_get_the_lock(
    tmp_path: Path, level: Level
) -> None:
    faults = FaultPlan()
    faults.fail("sign", errno.EIO, forever=True)
    faults.fail("truncate", errno.EIO, path="/locks/", forever=True)
    with opened_stores(tmp_path) as open_store:
        first = open_store(level, lock_timeout=0)
        second = open_store(level, disk=FaultyDisk(faults))
        take(first, ONE, 1)
        before = everything(first)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                take(second, ONE, 2)
            with pytest.raises(OSError, match="Input/output error"):
                second.cancel(ONE)
        assert everything(first) == before
        take(first, ONE, 2)  # and nobody else holds it
        faults.clear()
        take(second, ONE, 3)
        finish(first, ONE, 4)
