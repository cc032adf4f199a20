"""``repair`` mends what can be mended, and nothing that was acknowledged is lost by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from crew import Worker, cut, segment, visible
from damage import DAMAGES, DATA, ORPHAN, check, fill, kinds, staged
from seam import StoppingDisk
from support import journal_of, send

from txstore import FileStoreManager
from txstore.checks import KINDS, Finding, finding
from txstore.errors import TxStoreError

pytestmark = pytest.mark.promise(1)

MENDED = [name for name, damage in DAMAGES.items() if KINDS[damage.kind].mend]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A store that nobody uses."""
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        fill(store)
    return storage


def repair(storage: Path) -> list[Finding]:
    """What is left."""
    found = check(storage)
    with FileStoreManager(storage) as store:
        for one in found:
            assert store.repair(one) in ((True,) if one.mend else (False,))
    return check(storage)


def finish(storage: Path) -> None:
    """What was acknowledged is there."""
    with FileStoreManager(storage) as store:
        status = store.status("open")
        assert status is not None
        assert status.segments_received == 2
        send(store, cut(DATA * 3, 3, file_id="open", name="open")[2:])
        for message in cut(DATA, 2, file_id="two", name="folder/two"):
            if message.other_fields["segment_number"] == "2":
                assert store.store_segment(message).file_result == "store"
    assert visible(storage) == {"open": DATA * 3, "folder/two": DATA, "one": DATA}


@pytest.mark.parametrize("name", MENDED)
def test_what_can_be_mended_is_mended(storage: Path, name: str) -> None:
    DAMAGES[name].act(storage)
    assert repair(storage) == []
    finish(storage)


def test_each_kind_that_says_so_is_mended_by_a_test() -> None:
    assert {DAMAGES[name].kind for name in MENDED} == {
        kind for kind, one in KINDS.items() if one.mend
    }


@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in MENDED])
def test_what_cannot_be_mended_stays_as_it_is(storage: Path, name: str) -> None:
    """Nobody guesses what was meant."""
    damage = DAMAGES[name]
    damage.act(storage)
    before = [one.to_dict() for one in check(storage, deep=damage.deep)]
    try:
        with FileStoreManager(storage) as store:
            for one in check(storage, deep=damage.deep):
                assert one.mend or not store.repair(one)
    except TxStoreError:
        pass  # opening refuses it
    after = [one.to_dict() for one in check(storage, deep=damage.deep)]
    assert [one for one in before if one not in after and one["mend"] is None] == []


def test_a_linked_journal_in_use_is_left_alone(storage: Path) -> None:
    with Worker(storage) as worker:
        worker.store_segment(segment("open", 3, DATA))
        os.link(journal_of(storage), storage.parent / "link")
        assert kinds(storage) == {"journal-linked"}
        with pytest.raises(TxStoreError):
            FileStoreManager(storage)
        (storage.parent / "link").unlink()
        worker.store_segment(segment("open", 4, DATA))


def test_the_other_name_of_staged_bytes_stays_what_it_was(storage: Path) -> None:
    link = storage.parent / "link"
    os.link(staged(storage), link)
    assert repair(storage) == []
    finish(storage)
    assert link.read_bytes() == DATA * 2


def test_a_file_that_a_worker_is_about_to_record_is_no_orphan_to_repair(tmp_path: Path) -> None:
    """Found a moment ago, or made up: it is looked at again, with its worker's lock."""
    disk = StoppingDisk()
    with FileStoreManager(tmp_path, disk=disk) as store, FileStoreManager(tmp_path) as other:
        with disk.stopped(
            "sql", lambda: store.store_segment(segment("new", 1, DATA)), words="INSERT"
        ):
            name = staged(tmp_path).name
            assert not other.repair(finding("orphan", path="", name=name, size=0))
        assert not other.repair(finding("orphan", path="", name=name, size=0))
        assert store.store_segment(segment("new", 2, DATA)).segments_received == 2


@pytest.mark.parametrize(
    "path", ["{}/one", "{}/.workdir/staging/../../one", "{}/.workdir/journal.db"]
)
def test_nothing_but_a_leftover_is_removed_as_one(storage: Path, path: str) -> None:
    with FileStoreManager(storage) as store:
        assert not store.repair(finding("leftover", path=path.format(storage)))
    assert os.path.exists(path.format(storage))


def test_repairs_beside_workers_take_nothing_from_them(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        fill_by(worker)
        os.link(staged(tmp_path), tmp_path.parent / "link-of-it")
        (tmp_path / ".workdir" / "staging" / ORPHAN).write_text("x")
        assert repair(tmp_path) == []
        assert worker.store_segment(segment("open", 3, DATA)).segments_received == 3
        assert kinds(tmp_path, deep=True) == set()
    (tmp_path.parent / "link-of-it").unlink()


def fill_by(worker: Worker) -> None:
    for number in (1, 2):
        worker.store_segment(segment("open", number, DATA))
