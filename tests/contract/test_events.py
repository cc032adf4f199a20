"""Each transfer that ends has one event, and each consumer sees every event, in order."""

from __future__ import annotations

import json
import os
import threading
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crew import Worker, WorkerDiedError, cancel, cut, last, segment
from seam import WatchedDisk
from support import (
    OpenStore,
    at_each_level,
    claim,
    everything,
    message,
    over_every_engine,
    over_two_folders,
    request,
    sha256,
)

from txstore import Event, FileStoreManager
from txstore.errors import (
    FileMismatchError,
    OptionError,
    SequenceError,
    StoreClosedError,
    UnknownConsumerError,
)
from txstore.options import Level
from txstore.protocol.request import Message

pytestmark = over_every_engine

DATA = bytes(range(256)) * 3


def ends(store: FileStoreManager) -> list[tuple[str, str]]:
    """How transfers ended, in order."""
    return [(event.kind, event.file_id) for event in store.events()]


def sent_by(sender: object, one: Message) -> Message:
    """The message, as one that says who sent it."""
    made = message(one.payload, **one.other_fields)
    made.source_client_id = sender  # type: ignore[attr-defined]
    return made


def store_files(store: FileStoreManager, *names: str) -> None:
    for name in names:
        store.store_segment(last(name, 1, name.encode(), name, name.encode()))


# --- one event for each end ----------------------------------------------------------------------


@pytest.mark.promise(4)
@at_each_level
def test_a_transfer_has_one_event_however_often_its_messages_come(
    manager: OpenStore, level: Level
) -> None:
    store = manager(level)
    for _ in range(3):
        store.store_segment(last("one", 1, DATA, "one", DATA))
    parts = cut(DATA, 3, file_id="parts", name="sub/parts")
    for part in parts:
        store.store_segment(part)
        store.store_segment(part)
    assert ends(store) == [("stored", "one"), ("stored", "parts")]
    store.store_segment(segment("dropped", 1, DATA))
    for _ in range(3):
        store.store_segment(cancel("dropped"))
    store.cancel("nobody")
    manager(level).store_segment(parts[-1])
    assert ends(store) == [("stored", "one"), ("stored", "parts"), ("cancelled", "dropped")]


@pytest.mark.promise(4)
def test_an_id_that_is_used_again_has_an_event_each_time(manager: OpenStore) -> None:
    store = manager()
    for data in (b"first", b"second"):
        for part in cut(data, 2, file_id="same", name="file"):
            store.store_segment(part)
        store.store_segment(segment("same", 1, b"x"))
        store.cancel("same")
    assert ends(store) == 2 * [("stored", "same"), ("cancelled", "same")]


@pytest.mark.promise(4)
@over_two_folders
def test_a_file_in_one_segment_that_is_stored_again_has_an_event_each_time(
    manager: OpenStore,
) -> None:
    """As a consumer takes files away: the name is there again."""
    store = manager()
    for _ in range(2):
        store.store_segment(last("one", 1, DATA, "one", DATA))
        os.unlink(Path(store.storage_dir, "one"))
    assert ends(store) == [("stored", "one"), ("stored", "one")]


@pytest.mark.promise(5)
def test_what_is_refused_has_no_event(manager: OpenStore) -> None:
    store = manager()
    store.store_segment(segment("a", 1, DATA))
    wrong = last("a", 2, b"", "a", DATA + b"more")
    with pytest.raises(FileMismatchError):
        store.store_segment(wrong)
    with pytest.raises(SequenceError):
        store.store_segment(segment("b", 7, DATA))
    assert ends(store) == []


@pytest.mark.promise(4)
@at_each_level
@over_two_folders
def test_what_expires_has_an_event(manager: OpenStore, level: Level, ticks: list[float]) -> None:
    store = manager(level, expire_after=60.0)
    for number in range(40):
        store.store_segment(segment(f"left{number:02}", 1, DATA))
    ticks[0] += 60.0
    assert len(store.expire()) == 40
    assert store.expire() == []
    assert ends(store) == [("expired", f"left{number:02}") for number in range(40)]


@pytest.mark.promise(4)
@over_two_folders
def test_what_a_slice_of_housekeeping_drops_has_an_event(
    manager: OpenStore, ticks: list[float]
) -> None:
    store = manager(expire_after=60.0)
    store.store_segment(segment("left", 1, DATA))
    ticks[0] += 60.0
    store.store_segment(segment("other", 1, DATA))
    assert ends(store) == [("expired", "left")]


class EndingDisk(WatchedDisk):
    """Ends its process ahead of an operation."""

    def __init__(self, operation: str, words: str = "") -> None:
        super().__init__()
        self.operation, self.words = operation, words

    def before(self, operation: str, *facts: Any) -> None:
        if operation == self.operation and str(facts[0]).startswith(self.words):
            os._exit(9)


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    "place",
    [
        ("rename", "w"),
        ("sql", "DELETE FROM transfer"),
        ("sql", "INSERT INTO completion"),
        ("sql", "INSERT INTO event"),
        ("sql", "COMMIT"),
    ],
    ids=" ".join,
)
@at_each_level
def test_whoever_settles_an_intent_records_its_one_event(
    storage: Path, level: Level, place: tuple[str, str]
) -> None:
    first, last_one = cut(DATA, 2, file_id="a", name="a")
    end = sent_by("{sender}", last_one)
    with FileStoreManager(storage, durability=level) as store:
        store.store_segment(first)
    worker = Worker(storage, disk=partial(EndingDisk, *place), durability=level)
    with pytest.raises(WorkerDiedError):
        worker.store_segment(end)
    with FileStoreManager(storage, durability=level) as store:
        assert ends(store) == [("stored", "a")]
        store.store_segment(end)
        [event] = store.events()
    assert (event.name, event.sha256, event.sender) == ("a", sha256(DATA), "{sender}")


# --- what it tells -------------------------------------------------------------------------------


def test_an_event_tells_what_was_stored(manager: OpenStore) -> None:
    store, before = manager(), datetime.now(timezone.utc)
    for part in cut(DATA, 3, file_id="a", name="./sub//x/../größe"):
        store.store_segment(part)
    [event] = store.events()
    assert event == Event(
        sequence=1,
        kind="stored",
        file_id="a",
        segments=3,
        size=len(DATA),
        name="sub/größe",
        sha256=sha256(DATA),
        sender=None,
        created_at=event.created_at,
        recorded_at=event.recorded_at,
    )
    assert before - timedelta(seconds=1) < event.created_at < event.recorded_at
    told = json.loads(json.dumps(event.to_dict()))
    assert datetime.fromisoformat(told.pop("recorded_at")) == event.recorded_at
    assert told["name"] == "sub/größe"


def test_an_event_tells_what_was_dropped(manager: OpenStore) -> None:
    store = manager()
    for number in (1, 2):
        store.store_segment(segment("a", number, DATA))
    store.cancel("a")
    [event] = store.events()
    assert (event.segments, event.size) == (2, 2 * len(DATA))
    assert (event.name, event.sha256) == (None, None)


@pytest.mark.parametrize("result", ["store", "cancel"])
def test_the_sender_is_that_of_the_message_that_ended_the_transfer(
    manager: OpenStore, result: str
) -> None:
    store = manager()
    end = last("a", 2, b"", "a", DATA) if result == "store" else cancel("a")
    store.store_segment(sent_by("{one}", segment("a", 1, DATA)))
    store.store_segment(sent_by("{other}", end))
    [event] = store.events()
    assert event.sender == "{other}"


@pytest.mark.parametrize("sender", [None, 7, b"x", "", "a\nb", "a\0b", "\udc80", "x" * 256])
def test_a_sender_that_cannot_be_shown_is_left_out(manager: OpenStore, sender: object) -> None:
    store = manager()
    end = sent_by(sender, last("a", 1, DATA, "a", DATA))
    assert store.store_segment(end).file_result == "store"
    [event] = store.events()
    assert event.sender is None


# --- consumers -----------------------------------------------------------------------------------


@pytest.mark.promise(1)
@at_each_level
def test_what_a_consumer_is_not_done_with_comes_again(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    store_files(store, "a", "b", "c")
    seen = []
    for event in store.events(consumer="index"):
        seen.append(event.file_id)
        if event.file_id == "b":
            break
        event.done()
    for event in manager(level).events(consumer="index"):
        seen.append(event.file_id)
        event.done()
    assert seen == ["a", "b", "b", "c"]
    assert list(store.events(consumer="index")) == []
    store_files(store, "d")
    assert [event.file_id for event in store.events(consumer="index")] == ["d"]


@pytest.mark.promise(1)
def test_done_is_of_all_before_and_never_goes_back(manager: OpenStore) -> None:
    store = manager()
    store_files(store, "a", "b", "c")
    a, b, _ = store.events(consumer="index")
    b.done()
    a.done()
    assert [event.file_id for event in store.events(consumer="index")] == ["c"]
    [consumer] = store.consumers()
    assert (consumer.name, consumer.cursor, consumer.behind, consumer.lost) == ("index", 2, 1, 0)


@pytest.mark.promise(1)
def test_each_consumer_has_a_cursor_of_its_own_and_begins_with_the_oldest(
    manager: OpenStore,
) -> None:
    store = manager()
    store_files(store, "a", "b")
    for event in store.events(consumer="one"):
        event.done()
    assert [event.file_id for event in store.events(consumer="other")] == ["a", "b"]
    assert [(one.name, one.behind) for one in store.consumers()] == [("one", 0), ("other", 2)]


@at_each_level
def test_a_look_changes_nothing(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    store_files(store, "a", "b")
    assert len(list(store.events())) == 2
    before = everything(store)
    assert [event.file_id for event in store.events()] == ["a", "b"]
    assert store.consumers() == []
    assert everything(store) == before


@over_two_folders
def test_more_events_than_are_asked_for_at_once(manager: OpenStore) -> None:
    store = manager()
    names = [f"file{number}" for number in range(600)]
    store_files(store, *names)
    assert [event.name for event in store.events()] == names
    assert [event.sequence for event in store.events(consumer="c")] == list(range(1, 601))


def test_a_consumer_that_is_removed_is_told_and_may_begin_anew(manager: OpenStore) -> None:
    store = manager()
    store_files(store, "a", "b")
    event = next(store.events(consumer="index"))
    event.done()
    assert store.remove_consumer("index")
    assert not store.remove_consumer("index")
    with pytest.raises(UnknownConsumerError, match="index") as caught:
        event.done()
    assert caught.value.consumer == "index"
    assert [event.file_id for event in store.events(consumer="index")] == ["a", "b"]


def test_one_who_follows_gets_what_comes_and_is_stopped_by_another_thread(
    manager: OpenStore,
) -> None:
    store = manager()
    store_files(store, "a")
    seen: list[str] = []
    got_b = threading.Event()

    def consume() -> None:
        for event in feed:
            seen.append(event.file_id)
            event.done()
            if event.file_id == "b":
                got_b.set()

    feed = store.events(consumer="index", follow=True)
    thread = threading.Thread(target=consume)
    thread.start()
    store_files(store, "b")
    assert got_b.wait(60)
    feed.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert seen == ["a", "b"]


def test_a_stopped_feed_hands_out_nothing_more(manager: OpenStore) -> None:
    store = manager()
    store_files(store, "a", "b")
    with store.events(consumer="index") as feed:
        assert next(feed).file_id == "a"
        feed.stop()
        assert list(feed) == []


def test_a_closed_manager_hands_out_no_events(manager: OpenStore) -> None:
    store = manager()
    store_files(store, "a")
    feed, look = store.events(consumer="index", follow=True), store.events(follow=True)
    event = next(feed)
    next(look)
    store.close()
    for one in (feed, look):
        with pytest.raises(StoreClosedError):
            next(one)
    with pytest.raises(StoreClosedError):
        event.done()
    assert [event.file_id for event in manager().events(consumer="index")] == ["a"]


def test_events_are_there_for_any_manager_at_any_time(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        store_files(store, "a")
    with FileStoreManager(storage) as store:
        assert ends(store) == [("stored", "a")]


# --- what may be asked for -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb", "\udc80", 7, b"x", True])
def test_a_consumer_has_a_name_that_can_be_shown(manager: OpenStore, name: Any) -> None:
    with pytest.raises(OptionError) as caught:
        manager().events(consumer=name)
    assert (caught.value.option, caught.value.received) == ("consumer", name)


@pytest.mark.parametrize("most", [0, -1, 1.5, "7", True, None, 2**63], ids=repr)
def test_max_events_is_a_whole_number(tmp_path: Path, most: Any) -> None:
    with pytest.raises(OptionError, match="max_events"):
        FileStoreManager(tmp_path, max_events=most)


@pytest.mark.parametrize("kept", [-1, float("nan"), "7", True, None])
def test_keep_events_is_a_length_of_time(tmp_path: Path, kept: Any) -> None:
    with pytest.raises(OptionError, match="keep_events"):
        FileStoreManager(tmp_path, keep_events=kept)


def test_a_message_of_the_fabric_says_who_sent_it(manager: OpenStore) -> None:
    end = request(DATA, file_id="a", segment_number="1", **claim(DATA))
    end._source_client_id = "{client}"  # as dxlclient does when it arrives
    store = manager()
    store.store_segment(end)
    [event] = store.events()
    assert event.sender == "{client}"
