"""Listing and putting cost nothing in proportion to what nobody asks for."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from crew import segment
from support import over_every_engine, sha256

from txstore import FileStoreManager, digest
from txstore.cli.commands import txstore
from txstore.local.journal.rows import Transfer

pytestmark = over_every_engine

DATA = b"0123456789" * 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStoreManager]:
    with FileStoreManager(tmp_path, durability="none") as store:
        yield store


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The digests that are worked out, by the number of their bytes."""
    asked: list[int] = []
    real = digest.digest_of

    def counted(state: bytes | None, offset: int) -> bytes | None:
        asked.append(offset)
        return real(state, offset)

    monkeypatch.setattr(digest, "digest_of", counted)
    return asked


def test_hash_of_a_listed_transfer_is_worked_out_when_it_is_asked_for(
    store: FileStoreManager, digests: list[int]
) -> None:
    for number in range(5):
        store.store_segment(segment(f"one{number}", 1, DATA[number:]))
    found = store.transfers()
    assert [one.bytes_received for one in found] == [200, 199, 198, 197, 196]
    assert digests == []
    assert found[2].sha256 == found[2].sha256 == sha256(DATA[2:])
    assert digests == [198]


def test_listed_transfer_is_an_ordinary_value(store: FileStoreManager) -> None:
    store.store_segment(segment("one", 1, DATA))
    [listed], [again] = store.transfers(), store.transfers()
    known = store.status("one")
    assert known is not None
    assert listed == known
    assert hash(again) == hash(known)
    for made in (pickle.dumps, copy.copy, copy.deepcopy):
        [fresh] = store.transfers()
        done = made(fresh)
        assert (pickle.loads(done) if isinstance(done, bytes) else done) == known
    [fresh] = store.transfers()
    assert asdict(fresh)["sha256"] == sha256(DATA)
    [fresh] = store.transfers()
    assert repr(fresh) == repr(known)
    assert replace(store.transfers()[0], state="x").sha256 == sha256(DATA)
    with pytest.raises(AttributeError):
        _ = fresh.nothing
    store.store_segment(segment("one", 2, DATA))
    assert store.transfers() != [known]


def test_prefix_picks_exactly_the_ids_that_begin_with_it(store: FileStoreManager) -> None:
    top = chr(sys.maxunicode)
    ids = ["a", "ab", "ab" + top, "ab" + top * 253, "abc", "ac", "b", "AB", "ab ", "ä", "a%", "a_b"]
    for file_id in ids:
        store.store_segment(segment(file_id, 1, b"x"))
    for prefix in ("", "a", "ab", "abc", "abd", "A", "ab" + top, "a%", "a_", "ä", "z", "x" * 300):
        found = [one.file_id for one in store.transfers(prefix)]
        assert found == [one for one in ids if one.startswith(prefix)], prefix
    assert store.count_transfers() == len(ids)


def test_put_reads_no_row_of_other_transfers(
    store: FileStoreManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        store.store_segment(segment(f"other{number}", 1, DATA))
    made: list[Transfer] = []
    real = Transfer.__new__

    def counted(cls: type[Transfer], *args: object, **fields: object) -> Transfer:
        made.append(real(cls, *args, **fields))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(Transfer, "__new__", counted)
    files = [tmp_path.parent / f"{tmp_path.name}-{number}" for number in range(5)]
    for path in files:
        path.write_bytes(DATA)
    done = CliRunner().invoke(txstore, ["put", "--storage-dir", str(tmp_path), *map(str, files)])
    assert done.exit_code == 0, done.output
    assert [row.file_id for row in made if row.file_id.startswith("other")] == []
