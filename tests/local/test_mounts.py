"""Mounts that change under a transfer, and mounts below the storage."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from crew import apart, last, segment
from support import LEVELS, at_each_level, get_own_mounts, mount

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import NameRefusedError
from txstore.options import Level
from txstore.protocol.request import Message
from txstore.testing import FaultPlan, FaultyDisk, SimulatedCrash

DATA = b"a" * 70_000 + b"b"
of_the_dead = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _left(root: Path) -> list[str]:
    folders = (root / "working" / "staging", root / "storage" / ".txstore" / "staging")
    return [name for folder in folders if folder.exists() for name in os.listdir(folder)]


def _die_in_last(root: Path, level: Level, call: str) -> None:
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    store = FileStoreManager(root / "storage", root / "working", durability=level, disk=disk)
    store.store_segment(segment("died", 1, DATA[:-1]))
    faults.crash(call, path="/storage/died" if call == "rename" else "")
    with pytest.raises(SimulatedCrash):
        store.store_segment(last("died", 2, b"b", "died", DATA))
    disk.bury()


def _mount_apart(tmp_path: str, level: Level) -> None:
    """In a process of its own: as systemd does for two folders in ``ReadWritePaths=``."""
    root = Path(tmp_path)
    get_own_mounts()
    with FileStoreManager(root / "storage", root / "working", durability=level) as store:
        store.store_segment(segment("begun", 1, DATA[:-1]))
        store.store_segment(segment("goes on", 1, b"x"))
    _die_in_last(root, level, "rename")
    for name in ("storage", "working"):
        mount("--bind", root / name, root / name)
    with FileStoreManager(root / "storage", root / "working", durability=level) as store:
        # The intent of the dead worker could not be carried out: it was withdrawn.
        for file_id in ("begun", "died"):
            message = last(file_id, 2, b"b", f"sub/{file_id}", DATA)
            for _ in range(2):
                assert store.store_segment(message).file_result == "store"
            assert (root / "storage" / "sub" / file_id).read_bytes() == DATA
        store.store_segment(segment("goes on", 2, b"y"))
        store.store_segment(last("goes on", 3, b"z", "goes on", b"xyz"))
        store.store_segment(segment("new", 1, DATA[:-1]))
        store.store_segment(last("new", 2, b"b", "new", DATA))
    assert _left(root) == []


@at_each_level
@of_the_dead
def test_a_transfer_is_finished_after_its_folders_were_mounted_apart(
    tmp_path: Path, level: Level
) -> None:
    apart(_mount_apart, str(tmp_path), level)


class Apart(FaultyDisk):
    """Nothing can be renamed out of the working dir any more, as the kernel says at once (another
    mount), or only of files that there are (a project quota)."""

    def __init__(self, faults: FaultPlan | None = None, *, at_once: bool = True) -> None:
        super().__init__(faults)
        self.at_once = at_once

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        if "/working" in os.readlink(f"/proc/self/fd/{source_dir}"):
            there = os.access(f"/proc/self/fd/{source_dir}/{source}", os.F_OK)
            if self.at_once or there:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)


@pytest.mark.parametrize("at_once", [True, False], ids=["mount", "quota"])
@pytest.mark.parametrize("level", LEVELS)
@of_the_dead
def test_no_crash_while_it_is_copied_loses_anything(
    tmp_path: Path, level: Level, at_once: bool
) -> None:
    """One after the other: before each call of the last message that changes anything."""
    for nth in range(1, 60):
        root = tmp_path / str(nth)
        with FileStoreManager(root / "storage", root / "working", durability=level) as store:
            store.store_segment(segment("begun", 1, DATA[:-1]))
        faults = FaultPlan()
        disk = Apart(faults, at_once=at_once)
        store = FileStoreManager(root / "storage", root / "working", durability=level, disk=disk)
        message = last("begun", 2, b"b", "sub/file", DATA)
        faults.crash("change", nth=nth)
        try:
            store.store_segment(message)
        except SimulatedCrash:
            done = False
        else:
            done = True
        disk.bury()
        disk = Apart(at_once=at_once)
        with FileStoreManager(
            root / "storage", root / "working", durability=level, disk=disk
        ) as store:
            found = store.status("begun")
            assert found is not None
            assert found.state in ("receiving", "stored")
            assert store.store_segment(message).file_result == "store"
            store.expire()
        assert (root / "storage" / "sub" / "file").read_bytes() == DATA
        assert _left(root) == []
        if done:
            return
    raise AssertionError("it does not end")


def test_a_quota_that_nothing_gets_past_is_a_name_refused(tmp_path: Path) -> None:
    class Never(Disk):
        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            if target.startswith("file"):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)

    with FileStoreManager(tmp_path, durability="none", disk=Never()) as store:
        with pytest.raises(NameRefusedError):
            store.store_segment(last("one", 1, b"x", "file", b"x"))
        store.store_segment(segment("two", 1, b"x"))
        with pytest.raises(NameRefusedError):
            store.store_segment(last("two", 2, b"y", "file", b"xy"))
        assert [one.segments_received for one in store.transfers()] == [1]
        assert store.store_segment(last("two", 2, b"y", "other", b"xy")).file_result == "store"


# Mounts below the storage


def named(file_id: str, number: int, payload: bytes, name: str) -> Message:
    found = segment(file_id, number, payload)
    found.other_fields["name"] = name
    return found


def _refused_early(tmp_path: str) -> None:
    get_own_mounts()
    storage = Path(tmp_path, "storage")
    for name in ("mounted", "elsewhere"):
        (storage / name).mkdir(parents=True)
    mount("--bind", storage / "elsewhere", storage / "mounted")
    (storage / "link").symlink_to("mounted")

    with FileStoreManager(storage, durability="none") as store:

        def refused(message: Message) -> None:
            with pytest.raises(NameRefusedError, match="mount point"):
                store.store_segment(message)

        for name in ("mounted/file", "mounted/new/deep/file", "link/file"):
            refused(named("a", 1, b"x", name))
            refused(last("b", 1, b"x", name, b"x"))
            assert store.transfers() == []
            store.store_segment(segment("late", 1, b"x"))
            refused(named("late", 2, b"y", name))
            assert [one.segments_received for one in store.transfers()] == [1]
            store.store_segment(named("late", 2, b"y", "elsewhere/file"))
            store.cancel("late")
        for name in ("elsewhere/file", "new/deep/file", "file"):
            store.store_segment(named(name[:3], 1, b"x", name))
            store.store_segment(last(name[:3], 2, b"y", name, b"xy"))
        assert not (storage / "mounted" / "new").exists()


def test_a_mount_below_the_storage_is_refused_as_soon_as_the_name_is_known(tmp_path: Path) -> None:
    apart(_refused_early, str(tmp_path))


def test_who_cannot_ask_for_the_mount_keeps_no_file_open(tmp_path: Path) -> None:
    with FileStoreManager(tmp_path) as store:
        store.store_segment(segment("file", 1, b"begun"))
    disk = FaultyDisk()
    with FileStoreManager(tmp_path, disk=disk) as store:
        disk.faults.fail("rename", errno.EROFS)
        with pytest.raises(OSError, match="Read-only") as refused:
            store.store_segment(last("file", 2, b"", "file", b"begun"))
        assert refused.value.errno == errno.EROFS
        opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert not [path for path in opened if path.startswith(f"{tmp_path}/.workdir/staging/")]
        assert store.store_segment(last("file", 2, b"", "file", b"begun")).file_result == "store"
