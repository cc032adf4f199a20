"""The catalogue: name, size, SHA-256 and time of every stored file, for as long as it is there."""

from __future__ import annotations

import time
from typing import Any

import pytest
from crew import cancel, cut, last, segment
from support import OpenStore, at_each_level, over_every_engine, over_two_folders, send, sha256

from txstore import FileStoreManager
from txstore.errors import NameRefusedError, OptionError
from txstore.inspection import StoreInspector
from txstore.options import Level

pytestmark = [over_every_engine, pytest.mark.promise(1)]

DATA = b"0123456789" * 100


def listed(store: FileStoreManager) -> dict[str, str]:
    entries = list(store.catalogue())
    found = {one.name: one.sha256 for one in entries}
    assert len(found) == len(entries), "a file is in it twice"
    return found


@at_each_level
def test_every_stored_file_is_in_it(manager: OpenStore, level: Level) -> None:
    store = manager(level)
    began = time.time()
    send(store, cut(DATA, 3, file_id="several", name="sub/several"))
    store.store_segment(last("one", 1, b"one", "one", b"one"))
    store.store_segment(segment("unfinished", 1, b"x"))
    store.store_segment(segment("dropped", 1, b"x"))
    store.store_segment(cancel("dropped"))
    one, several = store.catalogue()
    assert (one.name, one.size, one.sha256) == ("one", 3, sha256(b"one"))
    assert (several.name, several.size, several.sha256) == ("sub/several", 1000, sha256(DATA))
    for entry in (one, several):
        assert began - 60 <= entry.stored_at.timestamp() <= time.time() + 60
        assert entry.to_dict() == {
            "name": entry.name,
            "size": entry.size,
            "sha256": entry.sha256,
            "stored_at": entry.stored_at.isoformat(),
        }


def test_a_file_that_is_replaced_is_in_it_once_as_it_is_now(manager: OpenStore) -> None:
    store = manager()
    for content in (b"old", b"new", b"newest"):
        store.store_segment(last(content.decode(), 1, content, "same", content))
        assert listed(store) == {"same": sha256(content)}


def test_it_is_told_in_order_and_from_any_entry_on(
    manager: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("txstore.store._PAGE", 3)
    store = manager()
    names = sorted([*(f"file{number}" for number in range(5)), "sub/one", "zz"])
    for name in reversed(names):
        store.store_segment(last(name.replace("/", "-"), 1, b"x", name, b"x"))
    entries = list(store.catalogue())
    assert [one.name for one in entries] == names
    assert list(store.catalogue(entries[2].key)) == entries[3:]
    assert list(store.catalogue(entries[-1].key)) == []


def test_files_stay_in_it_when_their_messages_are_forgotten(
    manager: OpenStore, ticks: list[float]
) -> None:
    store = manager("segment", keep_completed=60.0)
    send(store, cut(DATA, 3, file_id="several", name="sub/several"))
    store.store_segment(last("one", 1, b"one", "one", b"one"))
    known = list(store.catalogue())
    ticks[0] += 60.0
    store.expire()
    store.store_segment(last("new", 1, b"new", "new", b"new"))
    assert {one.name: one for one in store.catalogue()}.items() >= {
        one.name: one for one in known
    }.items()
    assert listed(manager()) == {
        "sub/several": sha256(DATA),
        "one": sha256(b"one"),
        "new": sha256(b"new"),
    }


@over_two_folders  # an object has its metadata, whatever is kept in a journal
def test_without_it_files_are_known_as_long_as_their_messages(
    manager: OpenStore, ticks: list[float]
) -> None:
    store = manager(keep_completed=60.0, catalogue=False)
    store.store_segment(last("one", 1, b"one", "one", b"one"))
    assert listed(store) == {"one": sha256(b"one")}
    ticks[0] += 60.0
    store.expire()
    assert listed(store) == {}


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_the_option_is_a_flag(manager: OpenStore, value: Any) -> None:
    with pytest.raises(OptionError, match="catalogue"):
        manager(catalogue=value)


# --- files are read ------------------------------------------------------------------------------


def looked_at(store: FileStoreManager) -> StoreInspector:
    return FileStoreManager.inspect(store.storage_dir, store.working_dir)


def test_files_that_are_as_they_were_stored_make_no_finding(manager: OpenStore) -> None:
    store = manager("segment")
    send(store, cut(DATA, 3, file_id="several", name="sub/several"))
    for name in ("empty", "one"):
        store.store_segment(last(name, 1, name.encode(), name, name.encode()))
    read: list[int] = []
    found = list(looked_at(store).verify(reached=read.append))
    assert [(one.name, one.found) for one in found] == [
        ("empty", None),
        ("one", None),
        ("sub/several", None),
    ]
    assert [one.entry for one in found] == list(store.catalogue())
    assert sum(read) == len(b"empty") + len(b"one") + len(DATA)
    assert list(looked_at(store).catalogue()) == list(store.catalogue())


def test_reading_begins_after_any_entry(manager: OpenStore) -> None:
    store = manager()
    for name in ("a", "b", "c"):
        store.store_segment(last(name, 1, b"x", name, b"x"))
    first, *rest = store.catalogue()
    found = looked_at(store).verify(after=first.key)
    assert [one.entry for one in found] == rest


def test_files_are_read_by_name(manager: OpenStore) -> None:
    store = manager()
    for name in ("a", "sub/b"):
        store.store_segment(last(name.replace("/", "-"), 1, b"x", name, b"x"))
    found = list(looked_at(store).verify(["./sub//b", "nothing"]))
    assert [one.name for one in found] == ["sub/b", "nothing"]
    assert found[0].found is None
    assert found[1].entry is None
    assert found[1].found is not None
    assert found[1].found.kind == "stored-unknown"
    with pytest.raises(NameRefusedError):
        next(looked_at(store).verify(["../a"]))


@pytest.mark.promise(7)
def test_a_file_that_is_replaced_while_it_is_read_is_read_anew(manager: OpenStore) -> None:
    """Before its turn comes, and in the middle of it."""
    store = manager("segment")
    store.store_segment(last("first", 1, b"x", "a", b"x"))
    contents = {name: name.encode() * 2**20 for name in ("old", "new", "newer")}
    ids = iter(contents)

    def replace() -> None:
        file_id = next(ids, None)
        if file_id is not None:
            store.store_segment(last(file_id, 1, contents[file_id], "b", contents[file_id]))

    replace()
    _, found = looked_at(store).verify(reached=lambda _: replace())
    assert found.found is None
    assert found.entry is not None
    assert found.entry.sha256 in {sha256(contents["new"]), sha256(contents["newer"])}


def test_reading_ends_with_what_is_raised_meanwhile(manager: OpenStore) -> None:
    store = manager()
    store.store_segment(last("one", 1, b"x", "one", b"x"))

    def reached(_size: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(looked_at(store).verify(reached=reached))
