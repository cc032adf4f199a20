"""``txstore cancel``, also of what a running ``put`` is at: nobody is told what is not so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_driver import after_ack, put, run, run_process
from crew import cut, segment
from support import published, send

from txstore import FileStoreManager, FileStoreSegmentResult
from txstore import source as source_module
from txstore.cli.put import CancelledError, Checked, Event, Put, Resumed, StartedOver
from txstore.source import Source
from txstore.testing import CrashingStore, SimulatedCrash
from txstore.testing.crashing import open_plain

SIZE = 4000  # four segments of 1 KiB

#: A process of its own cancels what is under way.
CANCEL = (
    "import subprocess; subprocess.run([sys.executable, '-m', 'txstore', 'cancel',"
    " message.other_fields['file_id'], '--storage-dir', self.storage_dir], check=True)"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def listed(storage: Path) -> list[str]:
    with FileStoreManager(storage) as store:
        return [transfer.file_id for transfer in store.transfers()]


# A put whose transfer is cancelled


@pytest.mark.parametrize("acked", [1, 2, 3])
def test_a_running_put_that_is_cancelled_says_so_and_stores_nothing(
    source: Path, storage: Path, acked: int
) -> None:
    command = put(source, storage)
    result = run_process(*command, setup=after_ack(acked, CANCEL), code=1)
    assert "source.bin was not stored: cancelled." in result.stderr
    assert not (storage / "source.bin").exists()
    assert listed(storage) == []
    run(*command)
    assert (storage / "source.bin").read_bytes() == source.read_bytes()


def test_a_put_that_goes_on_with_an_earlier_runs_transfer_is_cancelled_likewise(
    source: Path, storage: Path
) -> None:
    run_process(*put(source, storage), setup=after_ack(1, "os._exit(7)"), code=7)
    result = run_process(*put(source, storage), setup=after_ack(1, CANCEL), code=1)
    assert "resuming" in result.stderr
    assert "source.bin was not stored: cancelled." in result.stderr
    assert (listed(storage), (storage / "source.bin").exists()) == ([], False)


def test_of_several_files_only_the_cancelled_one_is_not_stored(
    tmp_path: Path, source: Path, storage: Path
) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(b"other")
    result = run_process(*put(source, storage, other), setup=after_ack(2, CANCEL), code=1)
    assert result.stderr.endswith("1 of 2 files were not stored.\n")
    assert (storage / "other.bin").read_bytes() == b"other"
    assert not (storage / "source.bin").exists()


@pytest.fixture
def compared(
    source: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FileStoreManager, Iterator[Event]]]:
    """A put that has compared the first tenth of what an earlier run left, and the store."""
    monkeypatch.setattr(source_module, "_SLICE", 102)
    with (
        FileStoreManager(storage, durability="none") as store,
        Source(source, "name") as before,
        Source(source, "name") as opened,
    ):
        next(Put(store, before, 1020).run())
        events = Put(store, opened, 1020).run()
        assert next(events) == Checked(102, 1020)
        yield store, events


def test_a_put_that_is_cancelled_while_it_compares_ends_at_once(
    compared: tuple[FileStoreManager, Iterator[Event]],
) -> None:
    store, events = compared
    [transfer] = store.transfers()
    store.cancel(transfer.file_id)
    with pytest.raises(CancelledError, match=transfer.file_id):
        next(events)
    assert (store.transfers(), published(store)) == ([], {})


def test_a_put_whose_transfer_is_cancelled_and_put_anew_meanwhile_goes_on_with_the_new_one(
    compared: tuple[FileStoreManager, Iterator[Event]], source: Path
) -> None:
    """Another run has found the source to be changed, and has begun anew."""
    store, events = compared
    [transfer] = store.transfers()
    store.cancel(transfer.file_id)
    with Source(source, "name") as opened:
        next(Put(store, opened, 1020).run())
    seen = list(events)
    assert Resumed(1020) in seen
    assert not any(isinstance(event, StartedOver) for event in seen)
    assert published(store) == {"name": source.read_bytes()}


def test_what_a_power_loss_took_was_not_cancelled(source: Path, storage: Path) -> None:
    command = put(source, storage)
    run_process(*command, setup=after_ack(2, "os._exit(7)"), code=7)
    [staged] = (storage / ".workdir" / "staging").iterdir()
    staged.write_bytes(bytes(2048))
    another = "from txstore.local.files.disk import Disk\nDisk.boot_id = lambda _disk: 'another'\n"
    result = run_process(*command, setup=another)
    assert "cancelled" not in result.stderr
    assert (storage / "source.bin").read_bytes() == source.read_bytes()


# What the command says that cancels


def test_cancelling_what_is_finished_at_the_same_moment_does_not_claim_to_have_dropped_it(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *begun, last = cut(b"x" * 4000, 4, file_id="one", name="file")
    with FileStoreManager(storage, durability="none") as other:
        send(other, begun)
        cancel = FileStoreManager.cancel

        def finished_first(self: FileStoreManager, file_id: str) -> FileStoreSegmentResult:
            other.store_segment(last)
            return cancel(self, file_id)

        monkeypatch.setattr(FileStoreManager, "cancel", finished_first)
        result = run("cancel", "one", "--storage-dir", storage, code=1)
    assert "one is stored already; nothing was done." in result.stderr
    assert "cancelled" not in result.output


def test_a_cancel_that_finds_the_file_in_place_dropped_nothing(storage: Path) -> None:
    """Its worker died between the rename and the record that the transfer is finished."""
    *begun, last = cut(b"x" * 4000, 4, file_id="one", name="file")
    with (
        CrashingStore(storage, open_plain) as dying,
        FileStoreManager(storage, durability="none") as store,
    ):
        send(dying.store, begun)
        dying.faults.crash("rename", after=True)
        with pytest.raises(SimulatedCrash):
            dying.store.store_segment(last)
        dying.disk.bury()
        assert store.cancel("one").segments_received == 0
        assert published(store) == {"file": b"x" * 4000}


def test_a_transfer_whose_staged_bytes_are_gone_can_be_cancelled(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        store.store_segment(segment("one", 1, b"x"))
    [staged] = (storage / ".workdir" / "staging").iterdir()
    staged.unlink()
    result = run("cancel", "one", "--storage-dir", storage)
    assert result.stdout == "cancelled one: 1 segments dropped\n"
    assert listed(storage) == []
