"""Several ``txstore put`` for one file at once: whatever the order of their steps, all end well."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cli_driver import run, start
from hypothesis import given, settings
from hypothesis import strategies as st

from txstore import FileStoreManager, FileStoreSegmentResult, TransferStatus
from txstore.cli.problems import CommandError
from txstore.cli.put import (
    Acked,
    CancelledError,
    Checked,
    Event,
    Put,
    Resumed,
    StartedOver,
    Stored,
)
from txstore.errors import FileMismatchError, SequenceError, StagingDamagedError
from txstore.protocol.request import Message
from txstore.source import Source

SIZE = 1000


class Workplace:
    """A source, a store, and any number of puts of the one into the other."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack = stack
        self.source = folder / "source"
        self.source.write_bytes(os.urandom(SIZE))
        self.storage = folder / "storage"
        self.stored = self.storage / "name"

    def store(self) -> FileStoreManager:
        return self.stack.enter_context(FileStoreManager(self.storage, durability="none"))

    def put(self, segment_size: int) -> Put:
        source = self.stack.enter_context(Source(self.source, "name"))
        return Put(self.store(), source, segment_size)

    def put_unaware_of_others(self, segment_size: int) -> Put:
        """A put that began at the same moment as the others, when nothing was there to be seen."""
        store = Unaware(self.storage, durability="none")
        self.stack.enter_context(store)
        return Put(store, self.stack.enter_context(Source(self.source, "name")), segment_size)


class Unaware(FileStoreManager):
    """A store whose list of transfers is empty when it is read for the first time."""

    _read = False

    def transfers(self, prefix: str = "") -> list[TransferStatus]:
        self._read, read_before = True, self._read
        return super().transfers(prefix) if read_before else []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with ExitStack() as stack:
        yield Workplace(stack, tmp_path)


def last(events: Iterator[Event]) -> Event:
    *_, event = events
    return event


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([70, 100, 110, 333, 1000]), min_size=2, max_size=3),
    turns=st.lists(st.integers(0, 2), max_size=40),
    cancels=st.sets(st.integers(0, 39), max_size=5),
)
def test_puts_that_take_turns_in_any_order_all_end_with_the_file_stored_or_are_cancelled(
    sizes: list[int], turns: list[int], cancels: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Workplace(stack, Path(folder))
        puts = {number: place.put(size) for number, size in enumerate(sizes)}
        runs = {number: put.run() for number, put in puts.items()}
        cancelled: set[int] = set()
        comparing: set[int] = set()
        either: set[int] = set()  # about to take up what was cancelled: it may find another one
        somebody = place.store()
        # After these turns each goes on to its end.
        for step, turn in enumerate([*turns, *(n for n in puts for _ in range(SIZE))]):
            if step in cancels:
                for transfer in somebody.transfers():
                    assert somebody.cancel(transfer.file_id).segments_received
                    at_it = (n for n in runs if puts[n].file_id == transfer.file_id)
                    cancelled.update(at_it)
                either |= comparing
            if turn not in runs:
                continue
            try:
                event = next(runs[turn])
            except CancelledError:
                assert turn in cancelled | either
                del runs[turn]
                continue
            comparing.discard(turn)
            if isinstance(event, Checked):
                comparing.add(turn)
            if isinstance(event, Stored):
                assert turn not in cancelled
                assert place.stored.read_bytes() == place.source.read_bytes()
                del runs[turn]
        assert not runs
        assert somebody.transfers() == []


def test_one_that_joins_finds_the_file_stored_by_the_other(place: Workplace) -> None:
    first, second = place.put(100).run(), place.put(100).run()
    next(first)
    assert [next(second), next(second)] == [Checked(100, 100), Resumed(100)]
    last(first)
    assert last(second) == Stored(0, by_another=True)


def test_one_that_is_overtaken_goes_on_from_there_without_announcing_it_again(
    place: Workplace,
) -> None:
    first, second = place.put(100).run(), place.put(100).run()
    next(first)
    assert [next(second), next(second)] == [Checked(100, 100), Resumed(100)]
    for _ in range(3):
        next(first)
    assert list(second) == [
        Checked(400, 400),
        *(Acked(offset, 100) for offset in range(500, SIZE, 100)),
        Stored(100),
    ]
    assert last(first) == Stored(0, by_another=True)


def test_one_that_is_overtaken_stays_with_the_transfer_that_it_began(place: Workplace) -> None:
    first = place.put(100).run()
    next(first)
    began = place.put_unaware_of_others(100).run()
    for _ in range(2):
        next(began)
    joined = place.put(100).run()
    for _ in range(4):
        next(joined)
    for _ in range(5):
        next(first)
    last(began)
    last(first)
    assert place.store().transfers() == []


def test_one_that_finds_the_transfer_finished_but_the_file_gone_stores_it_again(
    place: Workplace,
) -> None:
    first, second = place.put(100).run(), place.put(100).run()
    next(first)
    next(second)
    last(first)
    place.stored.unlink()
    assert last(second) == Stored(100)
    assert place.stored.read_bytes() == place.source.read_bytes()


def test_one_that_finds_the_transfer_finished_but_another_file_there_stores_it_again(
    place: Workplace,
) -> None:
    first, second = place.put(100).run(), place.put(100).run()
    next(first)
    next(second)
    last(first)
    place.stored.write_bytes(b"0" * SIZE)
    assert last(second) == Stored(100)
    assert place.stored.read_bytes() == place.source.read_bytes()


def test_two_processes_for_one_file_both_end_well(tmp_path: Path) -> None:
    source, storage = tmp_path / "source", tmp_path / "storage"
    source.write_bytes(os.urandom(300_000))
    command = ["put", str(source), "--storage-dir", str(storage), "--durability", "none"]
    processes = [start(*command, "--segment-size", size) for size in ("1000", "1300")]
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert "stored source: 293.0 KiB" in out  # or already, by the other one
    assert (storage / "source").read_bytes() == source.read_bytes()
    assert run("ls", "--storage-dir", storage).stdout == "No unfinished transfers.\n"


class Failing(FileStoreManager):
    """A store in which the answers to some messages are errors."""

    errors: list[Exception]

    def store_segment(self, message: Message) -> FileStoreSegmentResult:
        if self.errors:
            raise self.errors.pop(0)
        return super().store_segment(message)


def failing(place: Workplace, *errors: Exception) -> Put:
    store = Failing(place.storage, durability="none")
    place.stack.enter_context(store)
    store.errors = list(errors)
    source = place.stack.enter_context(Source(place.source, "name"))
    return Put(store, source, 400)


def test_lost_staged_bytes_start_the_file_over_and_say_so(place: Workplace) -> None:
    earlier = place.put(400)
    next(earlier.run())
    assert earlier.file_id is not None
    put = failing(place, StagingDamagedError("/staging", earlier.file_id, "is gone"))
    events = list(put.run())
    assert events[-1] == Stored(200)
    assert [type(event) for event in events].count(StartedOver) == 1
    assert place.stored.read_bytes() == place.source.read_bytes()


class Unhashed(FileStoreManager):
    """A store that cannot tell the hash of what it has received."""

    def status(self, file_id: str) -> TransferStatus | None:
        found = super().status(file_id)
        return found and replace(found, sha256=None)


@pytest.mark.parametrize("changed", [False, True])
def test_where_the_hash_so_far_is_unknown_the_final_one_decides(
    place: Workplace, changed: bool
) -> None:
    next(place.put(400).run())
    if changed:
        place.source.write_bytes(os.urandom(SIZE))
    store = place.stack.enter_context(Unhashed(place.storage, durability="none"))
    source = place.stack.enter_context(Source(place.source, "name"))
    events = list(Put(store, source, 400).run())
    assert Resumed(400) in events
    assert any(isinstance(event, StartedOver) for event in events) == changed
    assert events[-1] == Stored(200)
    assert place.stored.read_bytes() == place.source.read_bytes()


def test_a_store_that_received_something_else_starts_the_file_over(place: Workplace) -> None:
    mismatch = FileMismatchError(
        expected_size=1,
        received_size=2,
        expected_sha256="a",
        received_sha256="b",
        file_id=None,
    )
    events = list(failing(place, mismatch).run())
    assert isinstance(events[0], StartedOver)
    assert events[-1] == Stored(200)


def test_a_transfer_that_never_gets_on_is_given_up_in_words(place: Workplace) -> None:
    errors = [SequenceError(expected=1, received=1, file_id=None) for _ in range(100)]
    with pytest.raises(CommandError, match="others keep changing its transfer"):
        list(failing(place, *errors).run())
