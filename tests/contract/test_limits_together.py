"""Limits against workers that come at once: threads of one process, and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crew import Worker
from seam import StoppingDisk
from support import OpenStore, at_each_level, claim, everything, message, outcome, staged

from txstore import FileStoreManager
from txstore.errors import LimitError, SequenceError
from txstore.limits import Limits
from txstore.options import Level

pytestmark = pytest.mark.promise(5)

WORKERS = 4

#: Answers a message, or raises what a store raises.
Ask = Callable[[Any], Any]


def plain(file_id: str, number: int, payload: bytes) -> Any:
    return message(payload, file_id=file_id, segment_number=str(number))


@pytest.fixture(params=["threads", "processes"])
def workers(
    request: pytest.FixtureRequest, manager: OpenStore, storage: Path
) -> Iterator[Callable[..., list[Ask]]]:
    """Opens several stores with limits, in threads of this process or in processes."""
    with ExitStack() as opened:

        def open_some(level: Level, limits: Limits) -> list[Ask]:
            def open_one() -> FileStoreManager | Worker:
                if request.param == "threads":
                    return manager(level, limits=limits)
                return opened.enter_context(Worker(storage, durability=level, limits=limits))

            return [open_one().store_segment for _ in range(WORKERS)]

        yield open_some


def all_at_once(work: Callable[[int], int]) -> list[int]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(work, range(WORKERS)))


@at_each_level
def test_together_they_begin_no_transfer_more_than_there_may_be(
    workers: Callable[..., list[Ask]], storage: Path, level: Level
) -> None:
    most = 10
    asks = workers(level, Limits(max_transfers=most))

    def begin_until_refused(worker: int) -> int:
        for begun in range(most + 1):
            if isinstance(outcome(asks[worker], plain(f"{worker}-{begun}", 1, b"x")), LimitError):
                return begun
        raise AssertionError("nothing was refused")

    assert sum(all_at_once(begin_until_refused)) == most
    with FileStoreManager(storage) as store:
        assert store.count_transfers() == most
        assert len(staged(store)) == most


@at_each_level
def test_together_their_transfers_pass_the_limit_by_no_byte(
    workers: Callable[..., list[Ask]], storage: Path, level: Level
) -> None:
    most, size = 500, 7
    asks = workers(level, Limits(max_unfinished_bytes=most))

    def send_until_refused(worker: int) -> int:
        for number in range(1, most):
            sent = plain(str(worker), number, b"x" * size)
            if isinstance(outcome(asks[worker], sent), LimitError):
                return number - 1
        raise AssertionError("nothing was refused")

    assert sum(all_at_once(send_until_refused)) == most // size
    with FileStoreManager(storage) as store:
        assert sum(one.bytes_received for one in store.transfers()) == most // size * size
        assert sum(map(len, staged(store))) == most // size * size


@at_each_level
def test_together_they_make_no_file_larger_than_it_may_be(
    workers: Callable[..., list[Ask]], storage: Path, level: Level
) -> None:
    most, size = 200, 7
    asks = workers(level, Limits(max_file_size=most))

    def send_until_refused(worker: int) -> int:
        number, took = 1, 0
        while True:
            try:
                # With bytes of its own: it is never taken for the repeat of another's.
                asks[worker](plain("one", number, bytes([worker]) * size))
                number, took = number + 1, took + 1
            except SequenceError as error:
                number = error.expected
            except LimitError:
                return took

    assert sum(all_at_once(send_until_refused)) == most // size
    with FileStoreManager(storage) as store:
        assert [one.bytes_received for one in store.transfers()] == [most // size * size]


@at_each_level
@pytest.mark.parametrize("limits", [Limits(max_transfers=1), Limits(max_unfinished_bytes=10)])
def test_the_last_place_that_another_takes_meanwhile_is_not_taken_twice(
    manager: OpenStore, level: Level, limits: Limits
) -> None:
    """One was let in, and is about to stage and record its segment, when another is quicker."""
    disk = StoppingDisk()
    slow, quick = manager(level, limits=limits, disk=disk), manager(level, limits=limits)
    ends: list[Any] = []

    def begin() -> None:
        ends.append(outcome(slow.store_segment, plain("slow", 1, b"x" * 10)))

    with disk.stopped("create", begin):
        quick.store_segment(plain("quick", 1, b"x" * 10))
        before = everything(quick)
    assert [type(end) for end in ends] == [LimitError]
    assert everything(quick) == before
    quick.cancel("quick")
    begin()
    assert ends[-1].segments_received == 1


@at_each_level
def test_the_last_bytes_that_another_takes_meanwhile_are_not_taken_twice(
    manager: OpenStore, level: Level
) -> None:
    limits = Limits(max_unfinished_bytes=10)
    disk = StoppingDisk()
    slow, quick = manager(level, limits=limits, disk=disk), manager(level, limits=limits)
    ends: list[Any] = []
    slow.store_segment(plain("slow", 1, b"a" * 5))

    def go_on() -> None:
        ends.append(outcome(slow.store_segment, plain("slow", 2, b"b" * 5)))

    with disk.stopped("pwrite", go_on):
        quick.store_segment(plain("quick", 1, b"x" * 5))
        before = everything(quick)
    assert [type(end) for end in ends] == [LimitError]
    assert everything(quick) == before
    quick.cancel("quick")
    go_on()
    assert ends[-1].segments_received == 2
    end = slow.store_segment(
        message(b"c", file_id="slow", segment_number="3", **claim(b"aaaaabbbbbc"))
    )
    assert end.file_result == "store"


class StoppingThenFreeing(StoppingDisk):
    """Has something done when it is asked why there was no place.

    :ivar then: what
    :ivar asked: how often it was asked what is used, since it was let in
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.then: Callable[[], object] = bool

    def before(self, operation: str, *facts: Any) -> None:
        super().before(operation, *facts)
        if operation == "sql" and "SELECT (SELECT count" in facts[0]:
            self.asked += 1
            if self.asked == 2:
                self.then()


@at_each_level
@pytest.mark.parametrize("number", [1, 2])
def test_a_place_that_is_free_again_when_it_is_asked_why_is_taken(
    manager: OpenStore, level: Level, number: int
) -> None:
    limits = Limits(max_transfers=2, max_unfinished_bytes=10)
    disk = StoppingThenFreeing()
    slow, quick = manager(level, limits=limits, disk=disk), manager(level, limits=limits)
    if number == 2:
        slow.store_segment(plain("slow", 1, b"x" * 5))
    # A first segment is asked about before it is staged, too.
    disk.asked, disk.then = number - 1, lambda: quick.cancel("quick")
    ends: list[Any] = []

    def go_on() -> None:
        ends.append(outcome(slow.store_segment, plain("slow", number, b"x" * 5)))

    with disk.stopped("pwrite", go_on):
        quick.store_segment(plain("quick", 1, b"x" * (11 - 5 * number)))
    assert ends[0].segments_received == number
    assert disk.asked == 2
    assert [one.file_id for one in slow.transfers()] == ["slow"]
