"""Killed by SIGKILL, anywhere: what was acknowledged is kept, and whoever is left goes on."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from crew import Worker, WorkerDiedError, cancel, cut, last, segment, staging_files, visible
from seam import KillingDisk
from support import FULL, at_each_level

from txstore import FileStoreManager
from txstore.options import Level
from txstore.protocol.request import Message

DATA = bytes(range(251)) * 40
OLD = b"old content\n" * 50

Store = FileStoreManager | Worker


# --- between two segments ------------------------------------------------------------------------


@pytest.mark.parametrize("reopen", [True, False], ids=["opened after", "open before"])
@at_each_level
def test_transfer_goes_on_in_another_process_after_each_segment(
    tmp_path: Path, level: Level, reopen: bool
) -> None:
    messages = cut(DATA, 6, file_id="one", name="file")
    with FileStoreManager(tmp_path, durability=level) as survivor:
        for number, message in enumerate(messages, 1):
            worker = Worker(tmp_path, durability=level)
            assert worker.store_segment(message).segments_received == number
            worker.kill()
            store = FileStoreManager(tmp_path, durability=level) if reopen else survivor
            if number < len(messages):
                found = store.status("one")
                assert found is not None
                assert found.segments_received == number
            # Its answer may not have reached anybody: it is sent again.
            assert store.store_segment(message).segments_received == number
            if reopen:
                store.close()
        assert visible(tmp_path) == {"file": DATA}
        assert survivor.transfers() == []


@at_each_level
def test_survivors_of_three_workers_store_the_file(tmp_path: Path, level: Level) -> None:
    """One is killed at every seventh segment, while it has it; nobody is opened anew."""
    messages = cut(DATA, 20, file_id="one", name="file")
    workers = [Worker(tmp_path, durability=level) for _ in range(3)]
    for number, message in enumerate(messages, 1):
        if number % 7 == 0:
            victim = workers.pop(0)
            victim.ask("store_segment", message)
            victim.kill()
        worker = workers[number % len(workers)]
        assert worker.store_segment(message).segments_received == number
    assert visible(tmp_path) == {"file": DATA}
    for worker in workers:
        assert worker.call("transfers") == []
        worker.close()


@pytest.mark.parametrize("reopen", [True, False], ids=["opened after", "open before"])
@at_each_level
def test_what_a_killed_process_acknowledged_to_its_parent_is_there(
    tmp_path: Path, level: Level, reopen: bool
) -> None:
    """Killed wherever it is: while it is being sent further messages of many transfers."""
    names = [f"file{number}" for number in range(4)]
    queues = {name: cut(DATA, 5, file_id=name, name=name) for name in names}
    with FileStoreManager(tmp_path, durability=level) as survivor:
        worker = Worker(tmp_path, durability=level)
        acked = dict.fromkeys(names, 0)
        for step in range(5):
            for name in names:
                if (step, name) == (3, "file2"):
                    worker.ask("store_segment", queues[name][step])
                    worker.kill()
                    break
                acked[name] = worker.store_segment(queues[name][step]).segments_received
            else:
                continue
            break
        store = FileStoreManager(tmp_path, durability=level) if reopen else survivor
        for name in names:
            found = store.status(name)
            assert found is not None
            assert found.segments_received - acked[name] in ((0, 1) if name == "file2" else (0,))
            for message in queues[name][acked[name] :]:
                store.store_segment(message)
        if reopen:
            store.close()
    assert visible(tmp_path) == dict.fromkeys(names, DATA)


# --- at every operation --------------------------------------------------------------------------
# A workload of steps, each with what it may answer. Its worker is killed at the N-th operation, for
# each N; then somebody else repeats the step that was not answered, and does the rest.


class Step(NamedTuple):
    """A message, and the counts and results that it may be answered with."""

    message: Message
    answers: tuple[tuple[int, str | None], ...]

    def run(self, store: Store) -> None:
        answer = store.store_segment(self.message)
        found = answer.segments_received, answer.file_result
        assert found in self.answers, f"{self.message.other_fields}: {found}"


MANY = cut(DATA, 3, file_id="many", name="new/folder/many")
STEPS = [
    Step(MANY[0], ((1, None),)),
    Step(MANY[1], ((2, None),)),
    Step(MANY[1], ((2, None),)),
    Step(MANY[2], ((3, "store"),)),
    Step(last("single", 1, DATA, "another/single", DATA), ((1, "store"),)),
    Step(last("single", 1, DATA[:9], "old/single", DATA[:9]), ((1, "store"),)),
    Step(segment("over", 1, DATA[:500]), ((1, None),)),
    Step(last("over", 2, DATA[500:], "old/many", DATA), ((2, "store"),)),
    Step(segment("gone", 1, DATA), ((1, None),)),
    # Once it was carried out, there is nothing left to count.
    Step(cancel("gone"), ((1, "cancel"), (0, "cancel"))),
]

BEFORE = {"old/single": OLD, "old/many": OLD}
AFTER = {
    "new/folder/many": DATA,
    "another/single": DATA,
    "old/single": DATA[:9],
    "old/many": DATA,
}
#: The number of the step that stores a name.
STORED_BY = {"new/folder/many": 3, "another/single": 4, "old/single": 5, "old/many": 7}

#: The store's own files when nobody works.
OWN = re.compile(
    r"\.txstore/store|\.workdir/(journal\.(db(-wal|-shm)?|reserve|spare-[0-9])|locks/[a-z]+(-[0-9a-f]{2})?)"
)


def work(store: Store, done: int = 0) -> int:
    """Do the steps after the first ``done``, as long as the worker lives.

    :return: how many steps were answered in all
    """
    for step in STEPS[done:]:
        try:
            step.run(store)
        except WorkerDiedError:
            break
        done += 1
    return done


def killed(storage: Path, level: Level, at: int, done: int = 0) -> int:
    """Have a worker do what is left of the steps, and be killed at an operation.

    :return: how many steps were answered in all
    """
    worker = Worker(storage, durability=level, disk=partial(KillingDisk, at), wait=False)
    try:
        worker.opened()
    except WorkerDiedError:
        return done
    done = work(worker, done)
    if done == len(STEPS):
        worker.kill()
    return done


def check_raw(storage: Path, done: int) -> None:
    """On the disk as it is, every name has its old file whole or its new file whole, and the new
    one if that was acknowledged."""
    found = visible(storage)
    assert set(found) <= set(AFTER)
    expected: list[bytes | None]
    for name, content in AFTER.items():
        if done > STORED_BY[name]:
            expected = [content]
        elif done == STORED_BY[name]:  # it may have been carried out
            expected = [content, BEFORE.get(name)]
        else:
            expected = [BEFORE.get(name)]
        assert found.get(name) in expected, f"{name} is not as it may be"


def check_kept(storage: Path, store: FileStoreManager, done: int) -> None:
    """What was acknowledged of an unfinished transfer is in the journal."""
    received = {one.file_id: one.segments_received for one in store.transfers()}
    if done in (1, 2):
        assert received["many"] >= done
    if done == STORED_BY["new/folder/many"]:
        assert received.get("many") == 2 or "new/folder/many" in visible(storage)
    if done == STORED_BY["old/many"]:
        assert received.get("over") == 1 or visible(storage)["old/many"] == DATA


def check_clean(storage: Path) -> None:
    """A worker's first answer takes all that is left of dead ones."""
    with FileStoreManager(storage, durability="none") as cleaner:
        cleaner.store_segment(cancel("nothing"))
        assert cleaner.transfers() == []
    files = (str(one.relative_to(storage)) for one in storage.rglob("*") if one.is_file())
    assert [name for name in files if name not in AFTER and not OWN.fullmatch(name)] == []
    assert visible(storage) == AFTER


@contextmanager
def replaying(**facts: object) -> Iterator[None]:
    """Say in a failure how to have it again."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"killed at {facts}: {type(error).__name__}: {error}") from error


def prepared(storage: Path) -> Path:
    for name, content in BEFORE.items():
        (storage / name).parent.mkdir(parents=True, exist_ok=True)
        (storage / name).write_bytes(content)
    return storage


#: The short run looks at every so many operations; each test begins with another one.
STRIDE = 1 if FULL else 37
#: Where each of them is followed by seven more workers.
AGAIN = 11 if FULL else 37


def first_of(*facts: object, stride: int = STRIDE) -> int:
    return 1 + zlib.crc32(repr(facts).encode()) % stride


@at_each_level
def test_killed_at_any_operation_a_live_worker_goes_on(tmp_path: Path, level: Level) -> None:
    """Nobody opens anything: what the dead one left is settled by whoever meets it."""
    for at in range(first_of("live", level), 10_000, STRIDE):
        storage = prepared(tmp_path / str(at))
        with FileStoreManager(storage, durability=level) as survivor, replaying(at=at):
            done = killed(storage, level, at)
            check_raw(storage, done)
            check_kept(storage, survivor, done)
            assert work(survivor, done) == len(STEPS)
        check_clean(storage)
        if done == len(STEPS):
            break
    assert at > 100, "the workload has more operations than that"


@at_each_level
def test_killed_at_any_operation_from_the_first_opening_on_another_worker_goes_on(
    tmp_path: Path, level: Level
) -> None:
    for at in range(first_of("fresh", level), 10_000, STRIDE):
        storage = prepared(tmp_path / str(at))
        with replaying(at=at):
            done = killed(storage, level, at)
            check_raw(storage, done)
            with FileStoreManager(storage, durability=level) as survivor:
                check_kept(storage, survivor, done)
                assert work(survivor, done) == len(STEPS)
            check_clean(storage)
        if done == len(STEPS):
            break
    assert at > 100, "the workload has more operations than that"


@at_each_level
def test_killed_again_and_again_while_settling_what_others_left(
    tmp_path: Path, level: Level
) -> None:
    """Each worker gets a little further than the one before it, at most."""
    for at in range(first_of("again", level, stride=AGAIN), 10_000, AGAIN):
        storage = prepared(tmp_path / str(at))
        with replaying(at=at):
            done = killed(storage, level, at)
            if done == len(STEPS):
                break
            for again in range(30 + at % 7, 80, 7):
                done = killed(storage, level, again, done)
                check_raw(storage, done)
            with FileStoreManager(storage, durability=level) as survivor:
                check_kept(storage, survivor, done)
                assert work(survivor, done) == len(STEPS)
            check_clean(storage)


@at_each_level
def test_killed_at_any_operation_of_an_expiry(tmp_path: Path, level: Level) -> None:
    """A transfer is wholly there or wholly gone."""
    names = ["first", "second", "third"]
    stride = 1 if FULL else 7
    for at in range(1 + first_of("expire", level) % stride, 10_000, stride):
        storage = tmp_path / str(at)
        with FileStoreManager(storage, durability=level) as survivor, replaying(at=at):
            for name in names:
                survivor.store_segment(segment(name, 1, DATA[:100]))
            disk = partial(KillingDisk, at)
            worker = Worker(storage, durability=level, expire_after=0, disk=disk, wait=False)
            try:
                worker.opened()
                assert sorted(worker.call("expire")) == sorted(names)
                worker.kill()
                finished = True
            except WorkerDiedError:
                finished = False
            left = [one.file_id for one in survivor.transfers()]
            assert left == names[len(names) - len(left) :]
            for name in left:
                end = last(name, 2, DATA[100:], name, DATA)
                assert survivor.store_segment(end).segments_received == 2
            assert visible(storage) == dict.fromkeys(left, DATA)
        with FileStoreManager(storage, durability=level) as cleaner:
            cleaner.store_segment(cancel("nothing"))
            assert staging_files(storage / ".workdir") == []
        if finished:
            break
    assert left == []
