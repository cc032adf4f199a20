"""``txstore put`` keeps its source's mode and time, and a private file private at any moment."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_driver import put, run
from seam import WatchedDisk
from support import at_each_level, claim, message

from txstore import FileStoreManager
from txstore.options import Level
from txstore.protocol.request import LocalMessage
from txstore.testing import FaultPlan, FaultyDisk, SimulatedCrash

DATA = b"x" * 2500  # three messages
TIME = 1_000_000_000_123_456_789
#: ``other::---``, which a folder gives its new files.
NOT_FOR_OTHERS = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in ((1, 7), (4, 7), (0x20, 0))
)

in_one_and_in_several = pytest.mark.parametrize("size", [10, len(DATA)], ids=["one", "several"])
of_the_dead = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(DATA)
    return path


def kept(path: Path) -> tuple[int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_mtime_ns


@at_each_level
@in_one_and_in_several
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o664, 0o755, 0o4755], ids=oct)
def test_mode_and_time_are_kept(
    source: Path, storage: Path, level: Level, size: int, mode: int
) -> None:
    os.truncate(source, size)
    source.chmod(mode)
    os.utime(source, ns=(TIME, TIME))
    run(*put(source, storage, "--durability", level))
    assert kept(storage / "source.bin") == (mode & 0o777, TIME)
    assert (storage / "source.bin").read_bytes() == DATA[:size]
    assert "already stored" in run(*put(source, storage, "--durability", level)).stdout


@in_one_and_in_several
def test_a_source_that_has_another_mode_or_time_by_now_is_stored_again(
    source: Path, storage: Path, size: int
) -> None:
    os.truncate(source, size)
    run(*put(source, storage))
    source.chmod(0o600)
    assert "already" not in run(*put(source, storage)).stdout
    assert kept(storage / "source.bin") == kept(source)
    os.utime(source, ns=(TIME, TIME))
    assert "already" not in run(*put(source, storage)).stdout
    assert kept(storage / "source.bin") == kept(source)


class Onlooker(WatchedDisk):
    """Looks before each call whether anybody else could read what is stored or staged."""

    def __init__(self, *folders: Path) -> None:
        super().__init__()
        self.folders, self.looked, self.seen = folders, 0, set[str]()

    def before(self, operation: str, *_: Any) -> None:
        for folder in self.folders:
            for top, _folders, files in os.walk(folder):
                for name in files:
                    path = os.path.join(top, name)
                    self.looked += 1
                    if os.lstat(path).st_mode & 0o077 and "/locks/" not in path:
                        self.seen.add(f"{operation}: {path}")


@at_each_level
@in_one_and_in_several
@pytest.mark.parametrize("mode", [0o600, 0o660], ids=oct)
@pytest.mark.parametrize("working", [False, True], ids=["below the storage", "elsewhere"])
def test_a_private_file_is_private_at_any_moment(
    tmp_path: Path, source: Path, level: Level, size: int, mode: int, working: bool
) -> None:
    """Also from a group that shares the store, and whatever the folders' own lists say."""
    storage, apart = tmp_path / "storage", tmp_path / "working"
    for folder in (storage, apart):
        folder.mkdir()
        folder.chmod(0o2777)
    staging = (apart if working else storage / ".workdir") / "staging"
    disk = Onlooker(staging, storage / "sub", storage / ".txstore" / "staging")
    source.chmod(0o600)
    like, data = source.stat(), DATA[:size]
    parts = [data[at : at + 1000] for at in range(0, size, 1000)]
    with FileStoreManager(
        storage, apart if working else None, durability=level, mode=mode, disk=disk
    ) as store:
        for number, part in enumerate(parts, 1):
            fields = {"segment_number": str(number), "file_id": "private"}
            if number == len(parts):
                fields |= claim(data, "sub/file")
            store.store_segment(LocalMessage(part, fields, like))
            disk.before("afterwards")
    assert disk.looked
    assert disk.seen == set()
    assert kept(storage / "sub" / "file") == kept(source)


@in_one_and_in_several
def test_a_folders_default_list_takes_permissions_away(
    source: Path, storage: Path, size: int
) -> None:
    storage.mkdir(exist_ok=True)
    try:
        os.setxattr(storage, "system.posix_acl_default", NOT_FOR_OTHERS)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("no access control lists on this file system")
        raise
    os.truncate(source, size)
    source.chmod(0o644)
    run(*put(source, storage))
    assert kept(storage / "source.bin")[0] & 0o007 == 0


@at_each_level
@of_the_dead
def test_who_carries_out_the_intent_of_a_dead_worker_keeps_mode_and_time(
    tmp_path: Path, source: Path, level: Level
) -> None:
    """Also one that makes durable what level ``none`` did not, and writes it anew for that."""
    source.chmod(0o640)
    os.utime(source, ns=(TIME, TIME))
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    store = FileStoreManager(tmp_path / "storage", durability=level, disk=disk)
    fields = {"segment_number": "1", "file_id": "left"}
    store.store_segment(LocalMessage(DATA[:1000], fields, source.stat()))
    faults.crash("rename", path="/storage/file")
    fields = {"segment_number": "2", "file_id": "left", **claim(DATA, "file")}
    with pytest.raises(SimulatedCrash):
        store.store_segment(LocalMessage(DATA[1000:], fields, source.stat()))
    disk.bury()
    with FileStoreManager(tmp_path / "storage", durability="segment") as store:
        assert store.transfers() == []
    assert kept(tmp_path / "storage" / "file") == (0o640, TIME)


@in_one_and_in_several
def test_what_comes_from_elsewhere_has_no_say_in_mode_and_time(tmp_path: Path, size: int) -> None:
    """Neither a field nor an attribute of a message that is not of that type."""

    class Foreign:
        payload: Any
        other_fields: Any
        like = os.stat(__file__)

    data = DATA[:size]
    with FileStoreManager(tmp_path, durability="none") as store:
        cuts = [data] if size == 10 else [data[:1000], data[1000:]]
        for number, part in enumerate(cuts, 1):
            one = Foreign()
            fields = {"like": "0o777", "mode": "511", "st_mode": "511", "st_mtime_ns": str(TIME)}
            fields |= {"segment_number": str(number), "file_id": "foreign"}
            if number == len(cuts):
                fields |= claim(data, "file")
            one.payload, one.other_fields = part, message(**fields).other_fields
            store.store_segment(one)
    (tmp_path / "ordinary").touch()
    found, ordinary = (tmp_path / "file").stat(), (tmp_path / "ordinary").stat()
    assert found.st_mode == ordinary.st_mode
    assert abs(found.st_mtime_ns - ordinary.st_mtime_ns) < 60e9
