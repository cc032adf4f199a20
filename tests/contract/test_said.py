"""What a first segment says of its file is told of the transfer, and nothing rests on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import claim

from txstore import FileStoreManager
from txstore.errors import FieldError
from txstore.testing import segment

DATA = b"0123456789"


def told(store: FileStoreManager, file_id: str) -> tuple[str | None, int | None]:
    [listed] = store.transfers(file_id)
    status = store.status(file_id)
    assert status is not None
    assert (status.name, status.size) == (listed.name, listed.size)
    return listed.name, listed.size


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (None, None)),
        ({"name": "a//b/../c.txt"}, ("a/c.txt", None)),
        ({"size": "20"}, (None, 20)),
        ({"name": "ü\udcff", "size": 0}, ("ü\udcff", 0)),
        ({"size": 2**63 - 1}, (None, 2**63 - 1)),
        ({"size": 2**63}, (None, None)),
        ({"size": "9" * 50}, (None, None)),
    ],
    ids=str,
)
def test_name_and_size_are_those_of_the_first_segment(
    storage: Path, fields: dict[str, Any], expected: tuple[str | None, int | None]
) -> None:
    with FileStoreManager(storage) as store:
        store.store_segment(segment(1, DATA, "one", **fields))
        assert told(store, "one") == expected
        store.store_segment(segment(2, DATA, "one", name="other", size=7))
        assert told(store, "one") == expected
    with FileStoreManager(storage) as store:
        assert told(store, "one") == expected


def test_of_what_is_stored_the_last_segment_says_it(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        store.store_segment(segment(1, DATA, "one", name="first", size=99))
        store.store_segment(segment(2, b"", "one", **claim(DATA, "last")))
        status = store.status("one")
        assert status is not None
        assert (status.state, status.name, status.size) == ("stored", "last", len(DATA))
    assert (storage / "last").read_bytes() == DATA
    assert not (storage / "first").exists()


def test_a_name_that_is_refused_is_not_said(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        with pytest.raises((FieldError, ValueError)):
            store.store_segment(segment(1, DATA, "one", name="../outside"))
        assert store.transfers() == []
