"""A backup beside workers: whatever they do meanwhile, what was acknowledged before it is in it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crew import Worker, cancel, cut, last, segment, wait_for
from seam import WatchedDisk
from support import FULL, PlainMessage, held_locks, outcome, send

from txstore import FileStoreManager
from txstore.errors import LockTimeoutError, SequenceError
from txstore.process import forks
from txstore.process.threads import is_mine
from txstore.testing import FaultyDisk, SimulatedCrash

DATA = bytes(range(256)) * 6
OLDER = DATA[::-1]

pytestmark = pytest.mark.promise(1)


@dataclass
class Sent:
    """A file on its way.

    :ivar acked: how many of its messages were acknowledged when the backup began
    """

    name: str
    messages: list[PlainMessage]
    acked: int


def transfer(name: str, acked: int) -> Sent:
    return Sent(name, cut(DATA, 4, file_id=f"id-{name.replace('/', '-')}", name=name), acked)


def restored(backup: Path) -> Path:
    """As an operator does it: `cp -a`."""
    target = backup.with_name("restored")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(backup, target, symlinks=True)
    return target


def back_up(storage: Path, backup: Path, **options: Any) -> None:
    done = FileStoreManager.inspect(storage, **options).backup(backup)
    assert done.left_out == []


def check_goes_on(store: FileStoreManager, sent: Sent) -> None:
    """Its sender goes on where it was when the backup began, as far as the store is not ahead."""
    number, answer = sent.acked, None
    while number < len(sent.messages):
        try:
            answer = store.store_segment(sent.messages[number])
        except SequenceError as error:
            if 1 < error.expected <= number + 1 or number == len(sent.messages) - 1:
                raise  # it went back, or was dropped
            # Unknown: it was finished since, and its last message is answered.
            number = len(sent.messages) - 1 if error.expected == 1 else error.expected - 1
        else:
            number += 1
    if answer is not None:
        assert answer.file_result == "store"
    assert (Path(store.storage_dir) / sent.name).read_bytes() == DATA


def check_restored(backup: Path, transfers: Sequence[Sent]) -> None:
    """A store again, in which nothing is wrong, and all senders go on."""
    found = list(FileStoreManager.inspect(restored(backup)).check(deep=True))
    assert found == [], found
    with FileStoreManager(backup.with_name("restored"), durability="none") as store:
        for sent in transfers:
            check_goes_on(store, sent)


# --- whatever workers do while it is made --------------------------------------------------------


def a_file_is_finished(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        send(store, transfer("new/half", 0).messages[2:])


def a_segment_is_added(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        store.store_segment(transfer("new/half", 0).messages[2])


def a_transfer_is_cancelled(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        store.store_segment(cancel("dropped"))


def a_transfer_expires(storage: Path) -> None:
    with FileStoreManager(storage, durability="none", expire_after=1e-9) as store:
        store.cancel("id-first")  # nobody goes on with these two any more
        assert "dropped" in store.expire()


def a_file_is_replaced(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        store.store_segment(last("again", 1, DATA, "old/one", DATA))


def records_are_forgotten(storage: Path) -> None:
    """What is known of the files goes to the catalogue."""
    with FileStoreManager(storage, durability="none", keep_completed=1e-9) as store:
        store.store_segment(last("again", 1, DATA, "old/one", DATA))
        store.expire()


def a_transfer_is_begun(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        store.store_segment(segment("begun", 1, DATA))


def all_is_sent_anew(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        store.store_segment(cancel("id-new-half"))
        send(store, transfer("new/half", 0).messages[:2])


def bytes_move_to_another_file(storage: Path) -> None:
    for path in list((storage / ".workdir" / "staging").iterdir()):
        path.with_name("linked").hardlink_to(path)
        path.with_name("linked").rename(storage.parent / path.name)
    with FileStoreManager(storage, durability="none") as store:
        store.store_segment(transfer("new/half", 0).messages[2])
    for path in storage.parent.glob("w*"):
        path.unlink()


def a_worker_dies(storage: Path, *, after: bool) -> None:
    disk = FaultyDisk()
    store = FileStoreManager(storage, durability="none", disk=disk)
    half = transfer("new/half", 0)
    store.store_segment(half.messages[2])
    disk.faults.crash("rename", path="new/half", after=after)
    with pytest.raises(SimulatedCrash):
        store.store_segment(half.messages[3])
    disk.bury()


def a_worker_dies_before_it_publishes(storage: Path) -> None:
    a_worker_dies(storage, after=False)


def a_worker_dies_when_it_has_published(storage: Path) -> None:
    a_worker_dies(storage, after=True)


DEEDS: list[Callable[[Path], None]] = [
    a_file_is_finished,
    a_segment_is_added,
    a_transfer_is_cancelled,
    a_transfer_expires,
    a_file_is_replaced,
    records_are_forgotten,
    a_transfer_is_begun,
    all_is_sent_anew,
    bytes_move_to_another_file,
    a_worker_dies_before_it_publishes,
    a_worker_dies_when_it_has_published,
]


class InterruptingDisk(WatchedDisk):
    """Has something happen ahead of the N-th call of a backup during which others can work."""

    def __init__(self, storage: Path, at: int, deed: Callable[[Path], None]) -> None:
        super().__init__()
        self.storage, self.at, self.deed, self.count = storage, at, partial(deed, storage), 0

    def before(self, _operation: str, *_facts: Any) -> None:
        # While it copies the journal it sees that of one moment, and in this process nobody else
        # can open it.
        if held_locks(self.storage) or is_mine(forks.opening.lock):
            return
        self.count += 1
        if self.count == self.at:
            self.deed()


def filled(storage: Path) -> list[Sent]:
    """A store with some of everything; what its senders know."""
    transfers = [transfer("first", 1), transfer("new/half", 2), transfer("old/done", 4)]
    with FileStoreManager(storage, durability="none") as store:
        store.store_segment(segment("dropped", 1, DATA))
        store.store_segment(last("one", 1, OLDER, "old/one", OLDER))
        for sent in transfers:
            send(store, sent.messages[: sent.acked])
    return transfers


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_whatever_is_done_meanwhile_what_was_acknowledged_is_in_it(
    tmp_path: Path, deed: Callable[[Path], None]
) -> None:
    """At each call of the backup, one after the other; of several, if not at full size."""
    at, disk = -DEEDS.index(deed), None
    original = tmp_path / "original"
    transfers = filled(original)
    if deed in (a_transfer_expires, all_is_sent_anew):
        # These transfers are dropped meanwhile, and may be in it or not.
        gone = ("first", "new/half") if deed is a_transfer_expires else ("new/half",)
        transfers = [sent for sent in transfers if sent.name not in gone]
    while disk is None or disk.count >= at:
        at += 1 if FULL else 7
        storage, backup = tmp_path / "storage", tmp_path / "backup"
        for folder in (storage, backup):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, storage)
        disk = InterruptingDisk(storage, at, deed)
        with FileStoreManager(storage, durability="none"):
            back_up(storage, backup, disk=disk)
        check_restored(backup, transfers)
        assert (backup / "old/one").read_bytes() in (OLDER, DATA)
        assert (backup.with_name("restored") / "old/done").read_bytes() == DATA
    assert at > 60


class BackedUpDisk(WatchedDisk):
    """Has a backup made ahead of each call of a worker, unless it holds the journal."""

    def __init__(self, storage: Path, check: Callable[[Path], None]) -> None:
        super().__init__()
        self.storage, self.check, self.looking, self.backups = storage, check, False, 0

    def before(self, operation: str, *_facts: Any) -> None:
        if not self.looking or operation == "sql":
            return
        self.looking = False
        backup = self.storage.with_name(f"backup{self.backups}")
        try:
            back_up(self.storage, backup, lock_timeout=0)
        except LockTimeoutError:
            pass  # the journal is being written
        else:
            self.check(backup)
            self.backups += 1
            shutil.rmtree(backup)
        self.looking = True


def test_at_any_moment_of_a_workers_work_a_backup_is_right(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    transfers = [transfer("a", 0), transfer("deep/er/b", 0)]
    disk = BackedUpDisk(storage, lambda backup: check_restored(backup, transfers))
    with FileStoreManager(storage, durability="segment", disk=disk) as store:
        disk.looking = True
        for number in range(4):
            for sent in transfers:
                store.store_segment(sent.messages[number])
                sent.acked = number + 1
        store.store_segment(segment("dropped", 1, DATA))
        store.store_segment(cancel("dropped"))
        store.expire()
        disk.looking = False
    assert disk.backups > 60


def test_beside_real_workers_backups_are_right(tmp_path: Path) -> None:
    """They push, publish, cancel and expire all the time."""
    storage = tmp_path / "storage"
    FileStoreManager(storage).close()
    over = threading.Event()
    acked: dict[str, int] = {}
    sent: dict[str, list[PlainMessage]] = {}
    errors: list[object] = []

    def work(number: int) -> None:
        turn = 0
        with Worker(storage) as worker:
            while not over.is_set() and turn < 50:
                turn += 1
                name = f"{number}/{turn % 3}-{turn}"
                messages = cut(DATA, 4, file_id=f"{number}-{turn}", name=name)
                sent[name] = messages
                for one in messages[: 4 if turn % 5 else 2]:
                    worker.store_segment(one)
                    acked[name] = acked.get(name, 0) + 1
                worker.store_segment(last(f"same-{number}", 1, DATA, "same", DATA))
                worker.store_segment(segment(f"dropped-{number}", 1, DATA))
                worker.store_segment(cancel(f"dropped-{number}"))
                worker.call("expire")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    inspector = FileStoreManager.inspect(storage)
    for number in range(3):
        enough = len(acked) + 6
        wait_for(lambda enough=enough: len(acked) >= enough)  # type: ignore[misc]
        before = dict(acked)
        backup = tmp_path / f"backup{number}"
        done = outcome(inspector.backup, backup)
        if isinstance(done, Exception) or done.left_out:
            errors.append(done)
            break
        checked = [Sent(name, sent[name], count) for name, count in before.items()]
        # Again into the same place, while they go on.
        inspector.backup(tmp_path / "backup0")
        check_restored(backup, checked)
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(acked) > 6
