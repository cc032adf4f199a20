"""How far a transfer may go back after a power loss, and to what."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from support import Booted

from crash.oracle import broken
from crash.scenes import acks, check_crashes, run_of, scene
from crash.search import states
from crash.steps import Open, Send, message, upload
from crash.workloads import FOUR, A
from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import SequenceError
from txstore.local import append
from txstore.testing.faults import FaultPlan
from txstore.testing.powerloss import Platter

THREE = upload("three", "three.bin", 7, 11, 5)


def test_a_durable_point_that_does_not_verify_is_not_gone_back_to(tmp_path: Path) -> None:
    before, after = Booted("one"), Booted("two")
    with FileStoreManager(tmp_path, disk=before) as store:
        store.store_segment(message(THREE, 1))
    with FileStoreManager(tmp_path, durability="none", disk=before) as store:
        store.store_segment(message(THREE, 2))
    [staged] = (tmp_path / ".workdir" / "staging").iterdir()
    staged.write_bytes(b"x" * 7 + bytes(11))  # as a device that did not keep what it flushed
    with FileStoreManager(tmp_path, disk=after) as store:
        if store.status(THREE.file_id) is not None:
            raise broken(3, "staged bytes that do not verify are built on")


def test_in_a_boot_that_is_not_known_nothing_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crash.search.boot_of", lambda _history: "")
    run = run_of("no boot", "none", A)
    with scene(run.name, "none", boot="") as (session, disk):
        session.do(Open())
        session.do(Send(A, 1))
        session.do(Send(A, 2))
    check_crashes(run, disk.log, acks(disk.log))


def test_in_a_boot_that_is_not_known_a_file_that_was_not_flushed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disk, "boot_id", lambda _disk: "")
    last = message(THREE, 3)
    with FileStoreManager(tmp_path, durability="none") as store:
        for number in (1, 2):
            store.store_segment(message(THREE, number))
        store.store_segment(last)
    placed = tmp_path / "three.bin"
    found = placed.stat()
    placed.write_bytes(bytes(found.st_size))  # grown, and full of zeros
    os.utime(placed, ns=(found.st_atime_ns, found.st_mtime_ns))
    with FileStoreManager(tmp_path) as store, suppress(SequenceError):
        store.store_segment(last)
        raise broken(4, "three: answered as stored, and is not there whole")


@pytest.mark.parametrize("how", ["taken", "recorded by level none", "recorded by a failed call"])
def test_at_level_file_no_more_is_lost_than_since_the_durable_point(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nor where the last answer is to a repeat."""
    monkeypatch.setattr(append, "_DURABLE_POINT", 1000)  # the real one needs a file of 64 MiB
    plan = FaultPlan()
    with scene("bounded", "file", faults=plan) as (session, disk):
        session.do(Open())
        session.do(Open(1, "none"))
        for number in (1, 2, 3):
            session.do(Send(FOUR, number, int(how == "recorded by level none")))
            if number == 2 and how == "recorded by a failed call":
                plan.fail("flush", errno.EIO, path="wal", forever=True)
                with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                    session.do(Send(FOUR, 3))
                plan.clear()
        if how == "recorded by level none":
            session.do(Send(FOUR, 3))
        log = list(disk.log)
    staged = sum(map(len, FOUR.parts[:3]))
    for state in states(log, Platter(), (), "bounded", randoms=4, only={max(acks(log))}):
        left = Platter.of(state.tree), state.history
        with scene(state.label, "file", after=left, boot="boot-1") as (session, _):
            session.do(Open())
            status = session.manager().status("four")
            kept = status.bytes_received if status else 0
        if kept < staged - 1000:
            raise broken(1, f"{staged - kept} bytes are lost at level file: {state.label}")
