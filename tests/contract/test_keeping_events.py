"""Events are kept for their time and for every consumer, bounded in number; none piles up."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import pytest
from crew import last, segment
from support import Booted, OpenStore, journal, over_every_engine

from txstore import FileStoreManager

pytestmark = over_every_engine

pytestmark = pytest.mark.promise(9)

LIFETIME = 60.0


_ids = itertools.count()


def store_files(store: FileStoreManager, count: int) -> None:
    for _ in range(count):
        store.store_segment(last(f"f{next(_ids)}", 1, b"x", "one", b"x"))


def numbers(store: FileStoreManager) -> list[int]:
    return [event.sequence for event in store.events()]


def read_all(store: FileStoreManager, consumer: str) -> None:
    with store.events(consumer) as feed:
        for event in feed:
            event.done()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_without_consumers_events_go_when_their_time_has_passed(
    manager: OpenStore, ticks: list[float]
) -> None:
    store = manager(keep_events=LIFETIME)
    store_files(store, 50)
    ticks[0] += LIFETIME - 1
    store_files(store, 5)
    store.expire()
    assert len(numbers(store)) == 55
    ticks[0] += 1
    store.expire()
    assert numbers(store) == list(range(51, 56))


def test_the_newest_stays_so_that_no_number_comes_again(
    manager: OpenStore, ticks: list[float]
) -> None:
    store = manager(keep_events=LIFETIME)
    for expected in range(1, 5):
        store_files(store, 1)
        assert numbers(store)[-1] == expected
        ticks[0] += 2 * LIFETIME
        store.expire()


def test_events_that_a_consumer_is_not_done_with_stay(
    manager: OpenStore, ticks: list[float]
) -> None:
    store = manager(keep_events=LIFETIME)
    store_files(store, 5)
    third = next(event for event in store.events("slow") if event.sequence == 3)
    read_all(store, "quick")
    ticks[0] += 2 * LIFETIME
    store.expire()
    assert numbers(store) == [1, 2, 3, 4, 5]
    third.done()
    store.expire()
    assert numbers(store) == [4, 5]
    store.remove_consumer("slow")
    store.expire()
    assert numbers(store) == [5]


def test_no_more_are_kept_than_may_be(manager: OpenStore, ticks: list[float]) -> None:
    store = manager(max_events=10)
    store_files(store, 100)
    ticks[0] += 2
    for _ in range(5):
        store_files(store, 1)
    assert len(numbers(store)) <= 10 + 5  # what came since the last slice
    store.expire()
    assert numbers(store) == list(range(96, 106))


def test_events_of_a_thousand_files_a_second_stay_bounded(
    tmp_path: Path, ticks: list[float]
) -> None:
    with FileStoreManager(tmp_path, durability="none", keep_events=1.0) as store:
        for number in range(2500):
            ticks[0] += 0.001
            store.store_segment(last(f"one{number}", 1, b"x", "one", b"x"))
        # Those of the lifetime, of the tenth of it between two slices, and one slice.
        kept = len(journal(store.working_dir)["event"])
        assert kept <= 1000 + 100 + 32


def test_an_event_of_a_boot_whose_clock_was_ahead_goes_in_time(
    storage: Path, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [2e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    with FileStoreManager(storage, disk=Booted("before")) as store:
        store_files(store, 3)
    now[0] = 1e9
    with FileStoreManager(storage, disk=Booted("after"), keep_events=LIFETIME) as store:
        store_files(store, 1)  # and a slice, which stamps them
        # Nothing of another boot goes before this one has known the store for an hour.
        for clock in (ticks, now):
            clock[0] += max(LIFETIME, 3600.0)
        store.expire()
        assert numbers(store) == [4]


# --- consumers that are late ---------------------------------------------------------------------


def test_a_consumer_that_events_are_kept_for_is_warned_of_once(
    manager: OpenStore, ticks: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    store = manager(keep_events=LIFETIME)
    store_files(store, 3)
    next(store.events("index"))
    for _ in range(3):
        ticks[0] += LIFETIME
        store_files(store, 1)
    [text] = warnings(caplog)
    assert "Consumer 'index' is 4 events behind" in text
    read_all(store, "index")
    for _ in range(2):
        ticks[0] += LIFETIME
        store_files(store, 1)
    assert len(warnings(caplog)) == 2


def test_a_consumer_that_lost_events_is_warned_of_and_can_tell(
    manager: OpenStore, ticks: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    store = manager(max_events=10)
    store_files(store, 3)
    next(store.events("index"))
    store_files(store, 20)
    store.expire()
    ticks[0] += 2
    store_files(store, 1)
    [text] = warnings(caplog)
    assert "Consumer 'index' never saw 14 events" in text
    [consumer] = store.consumers()
    assert (consumer.cursor, consumer.behind, consumer.lost) == (0, 10, 14)
    assert next(store.events("index")).sequence == 15
    read_all(store, "index")
    [consumer] = store.consumers()
    assert (consumer.cursor, consumer.behind, consumer.lost) == (24, 0, 0)


def test_a_consumer_that_begins_late_has_lost_nothing(
    manager: OpenStore, ticks: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    store = manager(max_events=10)
    store_files(store, 20)
    store.expire()
    assert next(store.events("index")).sequence == 11
    ticks[0] += 2
    store.store_segment(segment("other", 1, b"x"))
    [consumer] = store.consumers()
    assert (consumer.behind, consumer.lost) == (10, 0)
    assert [text for text in warnings(caplog) if "never saw" in text] == []
