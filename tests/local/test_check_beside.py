"""``check`` beside workers: whatever they are in the middle of is no damage, and they go on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from crew import Worker, cancel, cut, forked, last, segment
from seam import StoppingDisk, WatchedDisk
from support import at_each_level, outcome, send

from txstore import FileStoreManager
from txstore.checks import Finding
from txstore.errors import LockTimeoutError
from txstore.options import Level
from txstore.protocol.request import Message

DATA = bytes(range(256)) * 4

pytestmark = pytest.mark.promise(7)


def check(storage: Path, **options: Any) -> list[Finding]:
    return list(FileStoreManager.inspect(storage, **options).check(deep=True))


def everything() -> Iterator[Message]:
    """All that can happen to transfers and names."""
    yield segment("dropped", 1, DATA)
    yield from cut(DATA * 3, 3, file_id="three", name="deep/er/file")
    yield last("one", 1, DATA, "one", DATA)
    yield last("again", 1, DATA * 2, "one", DATA * 2)
    yield from cut(DATA, 2, file_id="two", name="one")
    yield cancel("dropped")
    yield segment("left", 1, DATA)


class LookingDisk(WatchedDisk):
    """Has somebody look at the store before each call, with no time to wait for the worker."""

    def __init__(self, storage: Path) -> None:
        super().__init__()
        self.storage, self.looking = storage, False
        self.found: list[Finding] = []
        self.looks = 0

    def before(self, operation: str, *_facts: Any) -> None:
        if not self.looking or operation == "sql":
            return
        self.looking = False
        with suppress(LockTimeoutError):  # the journal is being written
            self.found += check(self.storage, lock_timeout=0)
            self.looks += 1
        self.looking = True


@at_each_level
def test_nothing_is_found_at_any_moment_of_a_workers_work(tmp_path: Path, level: Level) -> None:
    """What is being worked on cannot be judged then, and only that is said."""
    disk = LookingDisk(tmp_path)
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        disk.looking = True
        send(store, everything())
        store.expire()
        disk.looking = False
    assert {one.kind for one in disk.found} <= {"busy"}, disk.found
    assert disk.looks > 100


@at_each_level
def test_nothing_is_found_while_workers_run(tmp_path: Path, level: Level) -> None:
    """Nobody has to wait long, and what is said of a transfer that ends meanwhile is nothing."""
    FileStoreManager(tmp_path, durability=level).close()
    workers = [Worker(tmp_path, durability=level) for _ in range(2)]
    looking, over = FileStoreManager.inspect(tmp_path), threading.Event()
    looks: list[object] = []

    def look() -> None:
        while not over.is_set():
            looks.append(outcome(lambda: list(looking.check(deep=True))))

    thread = threading.Thread(target=look)
    thread.start()
    for turn in range(15):
        for number, worker in enumerate(workers):
            for message in cut(DATA * 3, 3, file_id=f"{turn}-{number}", name=f"{number}/file"):
                worker.store_segment(message)
            worker.store_segment(last(f"one-{number}", 1, DATA, "same", DATA))
            worker.store_segment(segment(f"dropped-{number}", 1, DATA))
            worker.store_segment(cancel(f"dropped-{number}"))
    over.set()
    thread.join()
    for worker in workers:
        worker.close()
    assert [one for one in looks if one != []] == []
    assert len(looks) > 1


class EndsMeanwhile(WatchedDisk):
    """Has a transfer end, or go on, after its row was read, and before its file is looked at, or
    before it is read."""

    def __init__(self, store: FileStoreManager, messages: list[Message], when: str) -> None:
        super().__init__()
        self.store, self.messages, self.when = store, messages, when

    def before(self, operation: str, *facts: Any) -> None:
        if operation != self.when or not self.messages:
            return
        path = os.readlink(f"/proc/self/fd/{facts[0]}") if operation == "pread" else str(facts[0])
        if "/staging/" in path:
            messages, self.messages = self.messages, []
            send(self.store, messages)


@pytest.mark.parametrize("when", ["stat", "pread"])
@pytest.mark.parametrize("way", ["cancelled", "finished", "went on", "sent again"])
def test_a_transfer_that_ends_between_two_looks_is_not_missed(
    tmp_path: Path, way: str, when: str
) -> None:
    one, two, three = cut(DATA * 3, 3, file_id="file", name="file")
    ways: dict[str, list[Message]] = {
        "cancelled": [cancel("file")],
        "finished": [two, three],
        "went on": [two],
        "sent again": [cancel("file"), one],
    }
    with FileStoreManager(tmp_path) as store:
        store.store_segment(one)
        assert check(tmp_path, disk=EndsMeanwhile(store, ways[way], when)) == []


class ReplacedMeanwhile(WatchedDisk):
    """Has a file stored anew, after its completion was read and before it is looked at."""

    def __init__(self, store: FileStoreManager, message: Message) -> None:
        super().__init__()
        self.store, self.message = store, message
        self.done = False

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "stat" and facts[0] == "file" and not self.done:
            self.done = True
            self.store.store_segment(self.message)


def test_a_file_that_is_replaced_between_two_looks_is_not_changed(tmp_path: Path) -> None:
    with FileStoreManager(tmp_path) as store:
        store.store_segment(last("old", 1, DATA, "file", DATA))
        new = last("new", 1, DATA * 2, "file", DATA * 2)
        assert check(tmp_path, disk=ReplacedMeanwhile(store, new)) == []


class BegunMeanwhile(WatchedDisk):
    """Has a transfer begun, after the rows were read."""

    def __init__(self, store: FileStoreManager) -> None:
        super().__init__()
        self.store, self.names = store, 0

    def before(self, operation: str, *_facts: Any) -> None:
        if operation == "list_folder":
            self.names += 1
            self.store.store_segment(segment(f"new-{self.names}", 1, DATA))


def test_a_transfer_that_begins_between_two_looks_is_no_orphan(tmp_path: Path) -> None:
    with FileStoreManager(tmp_path) as store:
        assert check(tmp_path, disk=BegunMeanwhile(store)) == []


# --- workers are not disturbed -------------------------------------------------------------------


def test_a_worker_goes_on_while_somebody_reads_the_journal(tmp_path: Path) -> None:
    disk = StoppingDisk()
    with Worker(tmp_path, lock_timeout=5) as worker:
        worker.store_segment(segment("file", 1, DATA))
        with disk.stopped("sql", lambda: check(tmp_path, disk=disk), words="integrity_check"):
            assert worker.store_segment(segment("file", 2, DATA)).segments_received == 2
            worker.store_segment(cancel("file"))


def test_a_store_at_rest_is_not_written_while_it_is_read(tmp_path: Path) -> None:
    """It is read as it stands in its file: what is written there meanwhile would be half of it."""
    disk = StoppingDisk()
    FileStoreManager(tmp_path).close()
    with (
        disk.stopped("sql", lambda: check(tmp_path, disk=disk), words="integrity_check"),
        Worker(tmp_path, lock_timeout=0.2) as worker,
        pytest.raises(LockTimeoutError),
    ):
        worker.store_segment(segment("file", 1, DATA))
    with Worker(tmp_path) as worker:
        worker.store_segment(segment("file", 1, DATA))


def test_a_manager_that_opens_its_journal_while_somebody_reads_can_write(tmp_path: Path) -> None:
    """In one process SQLite has one index, and whoever opens it first says how."""
    disk = StoppingDisk()
    done: list[object] = []
    with Worker(tmp_path) as worker, FileStoreManager(tmp_path) as store:
        worker.store_segment(segment("file", 1, DATA))
        forked(int)  # which leaves no connection open
        writer = threading.Thread(
            target=lambda: done.append(outcome(store.store_segment, segment("file", 2, DATA)))
        )
        with disk.stopped("sql", lambda: check(tmp_path, disk=disk), words="integrity_check"):
            writer.start()
            writer.join(0.5)  # it waits; if it did not, it would have failed by then
        writer.join()
    assert [getattr(one, "segments_received", one) for one in done] == [2]


def test_a_manager_that_is_closed_while_somebody_reads_leaves_his_locks(tmp_path: Path) -> None:
    """Closing any descriptor of the index drops all of a process's locks on it: then another
    process begins the log anew under the reader."""
    disk = StoppingDisk()
    with Worker(tmp_path) as worker:
        worker.store_segment(segment("file", 1, DATA))
        store = FileStoreManager(tmp_path)
        store.store_segment(segment("file", 2, DATA))
        with disk.stopped("sql", lambda: check(tmp_path, disk=disk), words="integrity_check"):
            before = _locks_on(tmp_path)
            store.close()
            assert before
            assert before & _locks_on(tmp_path) != set()


def _locks_on(storage: Path) -> set[str]:
    """Ranges of the index that this process has locked, as the kernel tells."""
    inode = (storage / ".workdir" / "journal.db-shm").stat().st_ino
    found = set()
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        kind, _, _, pid, where, *rest = line.split()[-7:]
        if (kind, pid) == ("POSIX", str(os.getpid())) and where.endswith(f":{inode}"):
            found.add(" ".join(rest))
    return found
