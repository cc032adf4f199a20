"""A published file gets what an ordinary new one gets that is made in its folder: mode, group, and
access control list, whatever those of the store's own folders."""

from __future__ import annotations

import errno
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from crew import apart, last, segment
from support import DISK, LEVELS, NotAllowedHereError, at_each_level

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.options import Level
from txstore.testing import FaultPlan, FaultyDisk, SimulatedCrash

USER, OWN, OTHERS, COMMON = 54001, 54001, 54999, 54321
ACL, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"

at_one_and_several = pytest.mark.parametrize("count", [1, 3], ids=["one", "several"])


class Found(NamedTuple):
    mode: str
    group: int
    acl: bytes


def found(path: Path) -> Found:
    facts = path.stat()
    try:
        acl = os.getxattr(path, ACL)
    except OSError:
        acl = b""
    return Found(stat.filemode(facts.st_mode), facts.st_gid, acl)


def become(umask: int, groups: list[int]) -> None:
    """Be a user who is no member of ``OTHERS``."""
    if os.geteuid() != 0:
        raise NotAllowedHereError("only root can become another user")
    with tempfile.TemporaryDirectory() as folder, FileStoreManager(folder):
        pass  # what is imported when first needed
    os.setgroups(groups)
    os.setresgid(OWN, OWN, OWN)
    os.setresuid(USER, USER, USER)
    os.umask(umask)


def acl(owner: int, group: int, other: int, **named: int) -> bytes:
    """A list; ``named``: ``u54002=7``, ``g54999=4``."""
    entries = [(0x01, owner, 0xFFFFFFFF), (0x04, group, 0xFFFFFFFF), (0x20, other, 0xFFFFFFFF)]
    for name, bits in named.items():
        entries.append((0x02 if name[0] == "u" else 0x08, bits, int(name[1:])))
    if named:
        entries.append((0x10, 7, 0xFFFFFFFF))
    packed = [struct.pack("<HHI", *one) for one in sorted(entries)]
    return struct.pack("<I", 2) + b"".join(packed)


def set_default(folder: Path, text: bytes) -> None:
    try:
        os.setxattr(folder, DEFAULT, text)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("no access control lists on this file system")
        raise


@pytest.fixture
def room() -> Iterator[Path]:
    """A storage and a working dir that belong to the user, below folders that all may enter."""
    with tempfile.TemporaryDirectory(dir=DISK) as folder:
        os.chmod(folder, 0o755)
        for name in ("storage", "storage/sub", "working"):
            made = Path(folder, name)
            made.mkdir()
            if os.geteuid() == 0:
                os.chown(made, USER, OWN)
        yield Path(folder)


def setgid(folder: Path, group: int) -> None:
    if os.geteuid() == 0:
        os.chown(folder, USER, group)
    folder.chmod(0o2755)


# --- what stands in the folders -------------------------------------------------------------------


def _foreign_group(room: Path) -> None:
    """The usual way to let a web server read: the worker is no member of that group."""
    setgid(room / "storage", OTHERS)
    setgid(room / "storage" / "sub", OTHERS)


def _foreign_group_below(room: Path) -> None:
    setgid(room / "storage" / "sub", OTHERS)


def _common_group(room: Path) -> None:
    setgid(room / "storage", COMMON)
    setgid(room / "storage" / "sub", COMMON)


def _group_of_the_stores_own_folders(room: Path) -> None:
    setgid(room / "working", COMMON)


def _private_list(room: Path) -> None:
    for name in ("storage", "storage/sub"):
        set_default(room / name, acl(7, 5, 0))


def _list_with_names(room: Path) -> None:
    for name in ("storage", "storage/sub"):
        set_default(room / name, acl(7, 0, 0, u54002=7, g54999=5))


def _list_of_the_stores_own_folders(room: Path) -> None:
    set_default(room / "working", acl(7, 7, 7, u54002=7))


def _list_and_group(room: Path) -> None:
    _foreign_group(room)
    _list_with_names(room)


SCENES = [
    _foreign_group,
    _foreign_group_below,
    _common_group,
    _group_of_the_stores_own_folders,
    _private_list,
    _list_with_names,
    _list_of_the_stores_own_folders,
    _list_and_group,
]
at_each_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda one: one.__name__[1:])


class WithoutUnnamedFiles(Disk):
    """A file system that has no files without names."""

    def new_file(self, *_: object) -> tuple[int, int, bytes]:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def create_there(self, *_: object, **_options: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _publish(
    room: Path, count: int, level: Level, umask: int, disk: Callable[[], Disk], working: str | None
) -> dict[str, tuple[Found, Found]]:
    """Publish, and make ordinary files and folders beside: what both have."""
    become(umask, [COMMON])
    compared = {}
    folder = None if working is None else room / working
    with FileStoreManager(room / "storage", folder, durability=level, disk=disk()) as store:
        for name in ("file", "sub/file", "made/file", "sub/made/deep/file"):
            for number in range(1, count):
                store.store_segment(segment(name[-6:-5] + str(len(name)), number, b"a"))
            data = b"a" * (count - 1) + b"b"
            message = last(name[-6:-5] + str(len(name)), count, b"b", name, data)
            for _ in range(2):
                assert store.store_segment(message).file_result == "store"
            path = room / "storage" / name
            assert path.read_bytes() == data
            beside = path.with_name("ordinary")
            beside.touch()
            compared[name] = found(path), found(beside)
            if "made" in name:
                made = path.parent.with_name("ordinary folder")
                made.mkdir()
                compared[name + "/.."] = found(path.parent), found(made)
        names = os.listdir(Path(store.working_dir, "staging"))
        assert names == []
    return compared


@at_each_scene
@at_one_and_several
@pytest.mark.parametrize(
    ("level", "umask", "working"),
    [("segment", 0o022, None), ("file", 0o027, "working"), ("none", 0o000, "working")],
)
def test_a_published_file_is_as_an_ordinary_new_one(
    room: Path,
    scene: Callable[[Path], None],
    count: int,
    level: Level,
    umask: int,
    working: str | None,
) -> None:
    scene(room)
    compared = apart(_publish, room, count, level, umask, Disk, working)
    assert {name: pair[0] for name, pair in compared.items()} == {
        name: pair[1] for name, pair in compared.items()
    }


@at_each_scene
@at_one_and_several
def test_also_where_no_file_is_without_a_name(
    room: Path, scene: Callable[[Path], None], count: int
) -> None:
    """A group that is not the user's to give is all that is missing then."""
    scene(room)
    for name, (ours, ordinary) in apart(
        _publish, room, count, "segment", 0o022, WithoutUnnamedFiles, "working"
    ).items():
        missing = scene is _foreign_group_below and name.startswith("sub/") and ".." not in name
        group = OWN if missing else ordinary.group
        assert ours == ordinary._replace(group=group)


# --- crashes --------------------------------------------------------------------------------------


def _die(room: Path, level: Level, call: str, path: str) -> None:
    become(0o022, [COMMON])
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    store = FileStoreManager(room / "storage", room / "working", durability=level, disk=disk)
    store.store_segment(segment("left", 1, b"a" * 1000))
    faults.crash(call, path=path)
    with pytest.raises(SimulatedCrash):
        store.store_segment(last("left", 2, b"b", "sub/file", b"a" * 1000 + b"b"))
    disk.bury()


def _settle(room: Path, level: Level) -> tuple[Found, Found]:
    become(0o077, [COMMON])  # of another umask: what the dead worker gave it counts
    with FileStoreManager(room / "storage", room / "working", durability=level) as store:
        message = last("left", 2, b"b", "sub/file", b"a" * 1000 + b"b")
        assert store.store_segment(message).file_result == "store"
        assert store.transfers() == []
    assert os.listdir(room / "working" / "staging") == []
    hidden = room / "storage" / ".txstore" / "staging"
    assert not hidden.exists() or os.listdir(hidden) == []
    os.umask(0o022)
    (room / "storage" / "sub" / "ordinary").touch()
    return found(room / "storage" / "sub" / "file"), found(room / "storage" / "sub" / "ordinary")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("scene", [_list_with_names, _list_and_group], ids=["list", "copied"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_carries_out_the_intent_of_a_dead_worker_gets_the_same(
    room: Path, scene: Callable[[Path], None], level: Level
) -> None:
    scene(room)
    apart(_die, room, level, "rename", "/sub/file")
    ours, ordinary = apart(_settle, room, level)
    assert ours == ordinary


@at_each_level
@pytest.mark.parametrize(
    ("call", "path"),
    [
        ("create_there", ""),
        ("pwrite", "/sub/#"),  # as /proc has it, also when it has a name
        ("flush", "/sub/#"),
        ("unlink", "/working/staging/"),
        ("chmod", "/sub/#"),
        ("rename", "/sub/file"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_crash_while_it_is_copied_loses_nothing(
    room: Path, level: Level, call: str, path: str
) -> None:
    """Of a file whose group only an inode made there can have."""
    if level != "segment" and call == "flush":
        pytest.skip("below level 'segment' the copy is flushed together with the last segment")
    _foreign_group_below(room)
    apart(_die, room, level, call, path)
    apart(_finish_after, room, level)
    assert (room / "storage" / "sub" / "file").stat().st_gid == OTHERS


def _finish_after(room: Path, level: Level) -> None:
    become(0o022, [COMMON])
    with FileStoreManager(room / "storage", room / "working", durability=level) as store:
        status = store.status("left")
        assert status is not None
        message = last("left", 2, b"b", "sub/file", b"a" * 1000 + b"b")
        assert store.store_segment(message).file_result == "store"
        store.expire()
    for folder in (room / "working" / "staging", room / "storage" / ".txstore" / "staging"):
        assert not folder.exists() or os.listdir(folder) == []
