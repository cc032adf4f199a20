"""``lock_timeout`` bounds all waiting of one call together, whatever it waits for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from crew import Worker
from seam import Pause, PausingDisk
from support import claim, message, outcome

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import LockTimeoutError
from txstore.segment import Message

#: Nothing here rests on how fast the machine is: pauses are added up as they were asked for.
TIMEOUT = 0.6

DATA = b"first" + b"second"


class BusyDisk(Disk):
    """Somebody else has the locks of each class of which ``until`` says so.

    :ivar until: class of lock (``transfer``, ``name``, ``journal``): when it becomes free
    :ivar waited: seconds of all pauses that were asked for
    """

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.waited = 0.0
        self._class_of: dict[int, str] = {}

    def open_or_create(self, name: str, mode: int, *, dir_fd: int) -> int:
        fd = super().open_or_create(name, mode, dir_fd=dir_fd)
        self._class_of[fd] = name.partition("-")[0]
        return fd

    def try_lock(self, fd: int) -> bool:
        if time.monotonic() < self.until.get(self._class_of[fd], 0.0):
            return False
        return super().try_lock(fd)

    def pause(self, seconds: float) -> None:
        self.waited += seconds
        super().pause(seconds)

    def keep(self, *classes: str, seconds: float = float("inf")) -> None:
        self.until = {one: time.monotonic() + seconds for one in classes}


def _begun(store: FileStoreManager) -> None:
    store.store_segment(message(b"first", file_id="a", segment_number="1"))


def _last() -> Message:
    return message(b"second", file_id="a", segment_number="2", **claim(DATA, "file"))


@pytest.mark.parametrize("kind", ["transfer", "name", "journal"])
def test_a_lock_that_is_never_free_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, kind: str
) -> None:
    disk = BusyDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        disk.keep(kind)
        start = time.monotonic()
        with pytest.raises(LockTimeoutError) as caught:
            store.store_segment(_last())
        assert time.monotonic() - start >= TIMEOUT
        assert disk.waited <= TIMEOUT
        assert caught.value.timeout == TIMEOUT
        assert kind in caught.value.path
        # It is as if it had not been sent.
        disk.until = {}
        answer = store.store_segment(_last())
        assert answer.file_result == "store"
        assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize(("first", "second"), [("transfer", "name"), ("transfer", "journal")])
def test_the_waits_of_one_call_are_bounded_together(
    tmp_path: Path, first: str, second: str
) -> None:
    """The first lock becomes free late, so that little is left for the second."""
    disk = BusyDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        disk.keep(second)
        disk.until[first] = time.monotonic() + 0.8 * TIMEOUT
        start = time.monotonic()
        with pytest.raises(LockTimeoutError) as caught:
            store.store_segment(_last())
        assert time.monotonic() - start >= TIMEOUT
        assert disk.waited <= TIMEOUT  # each for itself would be 1.8 times that
        disk.until = {}  # closing would wait, too
        assert second in caught.value.path


def test_other_processes_are_waited_for_no_longer_either(tmp_path: Path) -> None:
    """A worker is stopped in the middle of its transaction, holding its transfer and the journal;
    killed, it holds nobody up."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    pause, storage = Pause(meeting), tmp_path / "storage"
    disk = BusyDisk()
    with FileStoreManager(storage, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        store.store_segment(message(b"x", file_id="other", segment_number="1"))
        with Worker(storage, disk=_Stops(meeting), durability="none") as stopped:
            stopped.ask("store_segment", message(b"2", file_id="a", segment_number="2"))
            pause.reached()
            for file_id in ("a", "other"):
                start, disk.waited = time.monotonic(), 0.0
                error = outcome(
                    store.store_segment, message(b"2", file_id=file_id, segment_number="2")
                )
                assert isinstance(error, LockTimeoutError)
                assert time.monotonic() - start >= TIMEOUT
                assert disk.waited <= TIMEOUT
            stopped.kill()
            for file_id in ("a", "other"):
                answer = store.store_segment(message(b"2", file_id=file_id, segment_number="2"))
                assert answer.segments_received == 2


class _Stops:
    """Makes a worker's disk, in the worker."""

    def __init__(self, meeting: Path) -> None:
        self._meeting = meeting

    def __call__(self) -> Disk:
        return PausingDisk("UPDATE", self._meeting)


class StandingDisk(Disk):
    """Stops in the first write of a payload, until it is let go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if bytes(data) == b"stop here":
            self.reached.set()
            assert self.go_on.wait(60)
        return super().pwrite(fd, data, offset)


def test_other_threads_are_waited_for_no_longer_either(tmp_path: Path) -> None:
    disk = StandingDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        second = message(b"stop here", file_id="a", segment_number="2")
        inside = threading.Thread(target=store.store_segment, args=(second,))
        inside.start()
        assert disk.reached.wait(60)
        calls = (
            lambda: store.store_segment(message(b"y", file_id="a", segment_number="2")),
            lambda: store.store_segment(message(file_id="a", result="cancel")),
            lambda: store.cancel("a"),
            lambda: store.status("a"),
        )
        for call in calls:
            start = time.monotonic()
            assert isinstance(outcome(call), LockTimeoutError)
            assert time.monotonic() - start >= TIMEOUT
        # Listing waits for nobody's transfer.
        assert [one.segments_received for one in store.transfers()] == [1]
        disk.go_on.set()
        inside.join()
        status = store.status("a")
        assert status is not None
        assert status.segments_received == 2


def test_no_waiting_at_all_can_be_asked_for(tmp_path: Path) -> None:
    disk = BusyDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=0, durability="none") as store:
        _begun(store)
        disk.keep("transfer")
        error = outcome(store.store_segment, message(b"2", file_id="a", segment_number="2"))
        assert isinstance(error, LockTimeoutError)
        assert disk.waited == 0.0
