"""``on_exists="refuse"``: no file is replaced, exactly against any number of workers; a refusal
changes nothing, and nobody is refused because of a file that is his own."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crew import Worker, cut, last, segment
from support import OpenStore, at_each_level, claim, everything, message, outcome, published

from txstore import FileStoreManager
from txstore.errors import NameRefusedError, NameTakenError, OptionError, RequestError
from txstore.limits import Limits
from txstore.options import Level

pytestmark = pytest.mark.promise(5)

WORKERS = 4

OpenRefusing = Callable[[], FileStoreManager]


@pytest.fixture(params=["segment", "file", "none"])
def refusing(request: pytest.FixtureRequest, manager: OpenStore) -> OpenRefusing:
    return lambda: manager(request.param, on_exists="refuse")


@pytest.fixture
def store(refusing: OpenRefusing) -> FileStoreManager:
    return refusing()


def whole(file_id: str, data: bytes, name: str = "file") -> Any:
    """A file in one segment."""
    return last(file_id, 1, data, name, data)


def refused(store: FileStoreManager, what: Any) -> NameTakenError:
    """How a message is refused, which changes nothing."""
    before = everything(store)
    error = outcome(store.store_segment, what)
    assert isinstance(error, NameTakenError), f"promise 5: {error!r}"
    assert everything(store) == before, "promise 5: what is refused changes nothing"
    return error


@pytest.mark.parametrize("in_the_way", [whole("old", b"old"), whole("old", b"new!")])
def test_a_name_that_is_taken_is_refused_and_another_can_be_given(
    store: FileStoreManager, in_the_way: Any
) -> None:
    old = in_the_way.payload
    store.store_segment(in_the_way)
    store.store_segment(segment("new", 1, b"new"))
    error = refused(store, last("new", 2, b"!", "file", b"new!"))
    assert isinstance(error, FileExistsError)
    assert isinstance(error, NameRefusedError)
    assert (error.name, error.file_id, error.errno) == ("file", "new", 17)
    assert "'file' is refused: a file has that name already" in str(error)
    assert "another name" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.name, copy.errno) == (str(error), "file", 17)
    refused(store, whole("one", b"new!"))
    assert [one.file_id for one in store.transfers()] == ["new"]
    store.store_segment(last("new", 2, b"!", "other", b"new!"))
    assert published(store) == {"file": old, "other": b"new!"}


def test_what_was_refused_can_be_cancelled(store: FileStoreManager) -> None:
    store.store_segment(whole("old", b"old"))
    store.store_segment(segment("new", 1, b"new"))
    refused(store, last("new", 2, b"!", "file", b"new!"))
    assert store.cancel("new").segments_received == 1
    assert store.cancel("one").segments_received == 0
    assert [event.kind for event in store.events()] == ["stored", "cancelled"]


def test_what_was_stored_is_answered_again_and_not_refused(refusing: OpenRefusing) -> None:
    store = refusing()
    first, second = cut(b"in two", 2, file_id="two", name="two")
    store.store_segment(first)
    for one in (store, refusing()):
        for _ in range(2):
            assert one.store_segment(second).file_result == "store"
            assert one.store_segment(whole("one", b"one")).file_result == "store"
    assert published(store) == {"two": b"in two", "file": b"one"}
    # Also where the id's next transfer would finish with the same message.
    store.store_segment(first)
    assert store.store_segment(second).file_result == "store"
    assert store.transfers() == [], "promise 9: it stays open"
    assert [event.name for event in store.events()] == ["two", "file"]
    os.unlink(os.path.join(store.storage_dir, "two"))
    store.store_segment(first)
    assert store.store_segment(second).file_result == "store"
    assert store.transfers() == []
    assert published(store)["two"] == b"in two"


def test_a_wrong_hash_ends_the_transfer_whether_or_not_the_name_is_taken(
    store: FileStoreManager,
) -> None:
    store.store_segment(whole("old", b"old"))
    store.store_segment(segment("new", 1, b"new"))
    error = outcome(store.store_segment, last("new", 2, b"!", "file", b"new?"))
    assert isinstance(error, RequestError)
    assert not isinstance(error, NameTakenError)
    assert store.transfers() == []


@pytest.mark.parametrize("kind", ["file", "folder", "link", "broken link"])
def test_whatever_stands_there_is_in_the_way(store: FileStoreManager, kind: str) -> None:
    path = Path(store.storage_dir, "file")
    if kind == "file":
        path.write_bytes(b"somebody's")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
        if kind == "link":
            Path(store.storage_dir, "elsewhere").touch()
    refused(store, whole("one", b"one"))
    store.store_segment(segment("two", 1, b"two"))
    refused(store, last("two", 2, b"", "./x/../file", b"two"))


def test_a_name_below_a_file_is_refused_as_ever(store: FileStoreManager) -> None:
    store.store_segment(whole("old", b"old"))
    error = outcome(store.store_segment, whole("one", b"one", "file/below"))
    assert isinstance(error, NameRefusedError)
    assert not isinstance(error, NameTakenError)
    assert [one.file_id for one in store.transfers()] == []


def test_a_folder_that_is_not_there_is_made_for_a_name(store: FileStoreManager) -> None:
    store.store_segment(whole("one", b"one", "a/b/one"))
    refused(store, whole("two", b"two", "a/b/one"))
    assert published(store) == {"a/b/one": b"one"}


@pytest.mark.parametrize("value", ["", "Refuse", None, True, 1, "skip"])
def test_a_policy_that_there_is_not_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(OptionError, match="'replace' or 'refuse'") as caught:
        FileStoreManager(tmp_path / "storage", on_exists=value)
    assert (caught.value.option, caught.value.received) == ("on_exists", value)
    assert not (tmp_path / "storage").exists()


def test_files_are_replaced_if_nothing_is_said(manager: OpenStore) -> None:
    for store in (manager(), manager(on_exists="replace")):
        for data in (b"1", b"2"):
            store.store_segment(whole(f"{data!r}{id(store)}", data))
            assert published(store) == {"file": data}


def test_a_file_in_one_segment_is_no_transfer_for_the_limits(manager: OpenStore) -> None:
    """Its intent is recorded, and stays where the rename failed."""
    limits = Limits(max_transfers=1, max_unfinished_bytes=5)
    store = manager("none", on_exists="refuse", limits=limits)
    for name in ("a", "b"):
        store.store_segment(whole(name, b"twelve bytes", name))
    store.store_segment(segment("one", 1, b"x"))
    assert store.store_segment(whole("c", b"twelve bytes", "c")).file_result == "store"


# --- together ------------------------------------------------------------------------------------


@pytest.fixture(params=["threads", "processes"])
def workers(
    request: pytest.FixtureRequest, manager: OpenStore, storage: Path
) -> Iterator[Callable[[Level], list[Callable[[Any], Any]]]]:
    """Opens several stores that refuse, in threads of this process or in processes."""
    with ExitStack() as opened:

        def open_some(level: Level) -> list[Callable[[Any], Any]]:
            def open_one() -> FileStoreManager | Worker:
                if request.param == "threads":
                    return manager(level, on_exists="refuse")
                made = Worker(storage, durability=level, on_exists="refuse")
                return opened.enter_context(made)

            return [open_one().store_segment for _ in range(WORKERS)]

        yield open_some


@at_each_level
def test_of_all_who_finish_at_once_under_one_name_exactly_one_is_stored(
    workers: Callable[[Level], list[Callable[[Any], Any]]], storage: Path, level: Level
) -> None:
    asks = workers(level)
    begun = threading.Barrier(WORKERS)

    def finish(worker: int, turn: int) -> bool:
        data, file_id = b"%d %d" % (worker, turn), f"{worker}-{turn}"
        messages = cut(data, 1 + (worker + turn) % 2, file_id=file_id, name=f"file{turn}")
        for one in messages[:-1]:
            asks[worker](one)
        begun.wait(60)
        ended: Any = outcome(asks[worker], messages[-1])
        if isinstance(ended, NameTakenError):
            return False
        assert ended.file_result == "store", f"promise 5: {ended!r}"
        assert Path(storage, f"file{turn}").read_bytes() == data
        return True

    with ThreadPoolExecutor(WORKERS) as pool:
        for turn in range(12):
            stored = list(pool.map(finish, range(WORKERS), [turn] * WORKERS))
            assert sum(stored) == 1, f"promise 5: turn {turn}: {stored}"
    with FileStoreManager(storage) as store:
        names = [event.name for event in store.events()]
    assert names == [f"file{turn}" for turn in range(12)]


@at_each_level
def test_a_worker_that_refuses_and_one_that_replaces_each_do_as_they_are_told(
    manager: OpenStore, level: Level
) -> None:
    refuses, replaces = manager(level, on_exists="refuse"), manager(level)
    refuses.store_segment(whole("a", b"a"))
    replaces.store_segment(whole("b", b"b"))
    refused(refuses, whole("c", b"c"))
    assert published(refuses) == {"file": b"b"}
    # What was answered is answered by any, though the file is another's now.
    for store in (refuses, replaces):
        assert store.store_segment(whole("a", b"a")).file_result == "store"
    assert published(refuses) == {"file": b"b"}


def test_a_message_without_an_id_is_refused_too(store: FileStoreManager) -> None:
    one = message(b"x", segment_number="1", **claim(b"x", "file"))
    assert store.store_segment(one).file_result == "store"
    assert refused(store, one).file_id is None
