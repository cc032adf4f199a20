"""Reading what is stored."""

from __future__ import annotations

import hashlib

import pytest
from support import OpenStore

from txstore import FileStoreManager
from txstore.errors import NameRefusedError, StoreClosedError
from txstore.testing import Transfer, segment

pytestmark = pytest.mark.every_engine

BYTES = {name: name.encode() * 1000 for name in ("a/b/c", "a/d", "b", "b.txt", "ü")}


@pytest.fixture
def store(manager: OpenStore) -> FileStoreManager:
    store = manager()
    for name, content in BYTES.items():
        store.store_segment(Transfer(name, (content,)).message(1))
    store.store_segment(segment(1, b"unfinished", "id"))
    return store


def test_every_stored_file_is_listed_and_nothing_else(store: FileStoreManager) -> None:
    assert {one.name: one.size for one in store.stored()} == {
        name: len(content) for name, content in BYTES.items()
    }
    assert all(one.mtime_ns > 0 for one in store.stored())


def test_a_list_goes_on_after_any_name(store: FileStoreManager) -> None:
    names = [one.name for one in store.stored()]
    for number, name in enumerate(names):
        assert [one.name for one in store.stored(name)] == names[number + 1 :]
        assert [one.name for one in store.stored(name, 2)] == names[number + 1 : number + 3]
    assert list(store.stored(limit=0)) == []


def test_a_file_is_read_from_anywhere_with_its_hash(store: FileStoreManager) -> None:
    for name, content in BYTES.items():
        opened = store.open_stored(f"./{name}")
        with opened.file as file:
            assert file.read() == content
            assert file.seek(len(content) - 3) == len(content) - 3
            assert file.read(10) == content[-3:]
            assert file.seek(7) == 7
            assert file.read(3) == content[7:10]
            assert not opened.changed()
        assert (opened.size, opened.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_file_that_is_replaced_while_it_is_read_is_never_a_mixture(
    store: FileStoreManager,
) -> None:
    opened = store.open_stored("b")
    store.store_segment(Transfer("b", (b"another one",)).message(1))
    with opened.file as file:
        assert file.read() == BYTES["b"] or opened.changed()
    again = store.open_stored("b")
    assert again.identity != opened.identity
    again.file.close()


def test_what_is_not_there_is_told(store: FileStoreManager) -> None:
    for name in ("c", "a/c", "B"):
        with pytest.raises(FileNotFoundError):
            store.open_stored(name)
    for name in ("../a", "", ".txstore/staging/x"):
        with pytest.raises(NameRefusedError):
            store.open_stored(name)
    store.close()
    with pytest.raises(StoreClosedError):
        store.open_stored("b")
    with pytest.raises(StoreClosedError):
        next(store.stored())
