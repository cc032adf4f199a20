"""Where a name leads: normalised, inside the storage whatever links say, or refused and kept."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crew import apart
from support import (
    OpenStore,
    at_each_level,
    become_user,
    everything,
    folders,
    get_own_mounts,
    mount,
    outcome,
    published,
    send,
    staged,
    transfer_messages,
    tree,
)

from txstore import FileStoreManager, FileStoreSegmentResult
from txstore.disk import Disk
from txstore.errors import NameRefusedError
from txstore.local.files.stored import StoredFiles
from txstore.options import Level
from txstore.testing import FaultPlan, FaultyDisk, SimulatedCrash

DATA = b"the file's bytes"

#: Bytes a segment: one message, or several.
ONE, SEVERAL = len(DATA), 6

in_one_and_in_several = pytest.mark.parametrize("size", [ONE, SEVERAL], ids=["one", "several"])


@pytest.fixture
def store(manager: OpenStore) -> FileStoreManager:
    return manager("none")


@pytest.fixture
def storage(store: FileStoreManager) -> Path:
    return Path(store.storage_dir)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that nothing may be stored in."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "file").write_bytes(b"not the store's")
    return path


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


def put(store: FileStoreManager, name: str, size: int = ONE, data: bytes = DATA) -> None:
    """Store a file under a name."""
    answer = send(store, transfer_messages(data, size, name=name))
    assert answer.file_result == "store"


def refused(store: FileStoreManager, name: str, size: int) -> NameRefusedError:
    """Have a name refused, which leaves everything as it was and the transfer to go on with."""
    *begun, last = transfer_messages(DATA, size, name=name)
    for one in begun:
        store.store_segment(one)
    before = everything(store)
    error = outcome(store.store_segment, last)
    assert isinstance(error, NameRefusedError), error
    assert error.name == name
    assert error.file_id == "transfer"
    assert everything(store) == before
    last.other_fields["name"] = "another name"
    assert store.store_segment(last).file_result == "store"
    assert Path(store.storage_dir, "another name").read_bytes() == DATA
    return error


# Normalisation


@in_one_and_in_several
@pytest.mark.parametrize(
    "name",
    [
        "a/b/c.txt",
        "a//b///c.txt",
        "./a/b/c.txt",
        "a/./b/./c.txt",
        "a/x/../b/c.txt",
        "x/../a/b/y/../c.txt",
        "../storage/a/b/c.txt",
        "a/b/c.txt/",
        "a/b/c.txt/.",
        "{storage}/a/b/c.txt",
        "{storage}//a/../a/b/c.txt",
        "/{storage}/a/b/c.txt",
    ],
)
def test_a_name_is_normalised(store: FileStoreManager, name: str, size: int) -> None:
    put(store, name.replace("{storage}", store.storage_dir), size)
    assert published(store) == {"a/b/c.txt": DATA}
    # No folder is made for a part that a ".." takes back.
    assert sorted(os.listdir(store.storage_dir)) == [".txstore", ".workdir", "a"]


@in_one_and_in_several
@pytest.mark.parametrize(
    "name",
    [
        "...",
        ".hidden",
        ".workdirs",
        ".workdir-not",
        ".txstores/file",
        "a/.txstore/file",
        "a/.workdir",
        "~",
        "-",
        " ",
        "\n",
        "a\\b",
        "C:file",
        "ü\N{GRINNING FACE}",
        "\udc80\udcff",  # bytes that are no UTF-8, as the operating system's names come to Python
        "n" * 255,
        "f" * 255 + "/" + "n" * 255,
    ],
    ids=lambda value: repr(value)[:12],
)
def test_an_unusual_name_is_a_name(store: FileStoreManager, name: str, size: int) -> None:
    put(store, name, size)
    assert Path(store.storage_dir, name).read_bytes() == DATA
    # It is recorded as it is: the repeat is known.
    put_again = transfer_messages(DATA, size, name=name)[-1]
    assert store.store_segment(put_again).file_result == "store"


@in_one_and_in_several
def test_the_longest_path_that_can_be_opened_is_stored(store: FileStoreManager, size: int) -> None:
    room = 4095 - len(os.fsencode(store.storage_dir)) - 1
    folders = "f" * 200 + "/"
    name = folders * (room // len(folders)) + "n" * (room % len(folders))
    assert len(os.path.join(store.storage_dir, name)) == 4095
    put(store, name, size)
    assert Path(store.storage_dir, name).read_bytes() == DATA


@in_one_and_in_several
def test_a_path_that_no_program_could_open_is_refused(store: FileStoreManager, size: int) -> None:
    room = 4096 - len(os.fsencode(store.storage_dir)) - 1
    folders = "f" * 200 + "/"
    name = folders * (room // len(folders)) + "n" * (room % len(folders))
    assert "too long" in refused(store, name, size).reason


# What stands in the way


@in_one_and_in_several
@pytest.mark.parametrize(
    "name", ["n" * 256, "a/" + "n" * 256, "n" * 256 + "/a", "new/b/" + "ü" * 128]
)
def test_a_part_that_is_too_long_is_refused(store: FileStoreManager, name: str, size: int) -> None:
    assert "too long" in refused(store, name, size).reason


@in_one_and_in_several
def test_a_folder_under_the_name_is_refused(
    store: FileStoreManager, storage: Path, size: int
) -> None:
    (storage / "folder" / "inner").mkdir(parents=True)
    (storage / "folder" / "file").write_bytes(b"kept")
    for name in ("folder", "folder/inner", "folder/../folder"):
        assert "folder" in refused(store, name, size).reason


@in_one_and_in_several
@pytest.mark.parametrize("name", ["file/a", "file/a/b/c", "folder/file/a", "new/../file/a"])
def test_a_parent_that_is_a_file_is_refused(
    store: FileStoreManager, storage: Path, name: str, size: int
) -> None:
    (storage / "file").write_bytes(b"kept")
    (storage / "folder").mkdir()
    (storage / "folder" / "file").write_bytes(b"kept")
    assert "is a file" in refused(store, name, size).reason


@in_one_and_in_several
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_parent_that_is_neither_file_nor_folder_is_refused(
    store: FileStoreManager, storage: Path, kind: str, size: int
) -> None:
    mode = {"pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK}[kind]
    os.mknod(storage / "thing", 0o600 | mode)
    refused(store, "thing/a", size)


@in_one_and_in_several
def test_folders_made_for_a_refused_name_are_removed(
    store: FileStoreManager, storage: Path, size: int
) -> None:
    (storage / "old").mkdir()
    for name in (
        "new/x/" + "n" * 256,
        "old/new/x/" + "n" * 256 + "/file",
        "old/new/" + "n" * 256,
    ):
        refused(store, name, size)  # compares the whole tree
    assert sorted(path.name for path in storage.iterdir()) == [
        ".txstore",
        ".workdir",
        "another name",
        "old",
    ]


@in_one_and_in_several
def test_a_folder_that_somebody_came_to_use_is_left(tmp_path: Path, size: int) -> None:
    """It was made for a request that is then refused, but is not empty any more."""

    class Guest(Disk):
        def stat(self, name: str, **how: Any) -> os.stat_result:
            if name == "taken" and made.is_dir():
                (made / "taken").mkdir(exist_ok=True)
            return super().stat(name, **how)

    made = tmp_path / "new" / "inner"
    with FileStoreManager(tmp_path, durability="none", disk=Guest()) as store:
        error = outcome(put, store, "new/inner/taken", size)
    assert isinstance(error, NameRefusedError)
    assert (made / "taken").is_dir()


# What is replaced


@in_one_and_in_several
def test_a_file_under_the_name_is_replaced(
    store: FileStoreManager, storage: Path, size: int
) -> None:
    (storage / "file").write_bytes(b"old")
    (storage / "file").chmod(0o400)
    os.link(storage / "file", storage / "second name")
    put(store, "file", size)
    assert published(store) == {"file": DATA, "second name": b"old"}


@in_one_and_in_several
@pytest.mark.parametrize("target", ["other", "../outside/file", "missing", "link", ".", ".workdir"])
def test_a_link_under_the_name_is_replaced_itself(
    store: FileStoreManager, storage: Path, outside: Path, target: str, size: int
) -> None:
    (storage / "other").write_bytes(b"pointed to")
    (storage / "link").symlink_to(target)
    before = tree(outside)
    put(store, "link", size)
    assert not (storage / "link").is_symlink()
    assert published(store) == {"link": DATA, "other": b"pointed to"}
    assert tree(outside) == before


@in_one_and_in_several
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_folder_under_the_name_is_replaced(
    store: FileStoreManager, storage: Path, kind: str, size: int
) -> None:
    mode = {"pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK}[kind]
    os.mknod(storage / "thing", 0o600 | mode)
    put(store, "thing", size)
    assert published(store) == {"thing": DATA}


# Links among the parents


@in_one_and_in_several
@pytest.mark.parametrize(
    ("links", "name", "place"),
    [
        ({"link": "real"}, "link/file", "real/file"),
        ({"link": "{storage}/real"}, "link/file", "real/file"),
        ({"link": "real/deep"}, "link/file", "real/deep/file"),
        ({"link": "real/../real/./deep/"}, "link/file", "real/deep/file"),
        ({"link": "."}, "link/file", "file"),
        ({"real/up": ".."}, "real/up/file", "file"),
        ({"real/up": "../real/deep"}, "real/up/new/file", "real/deep/new/file"),
        ({"one": "two", "two": "three", "three": "real"}, "one/file", "real/file"),
        ({"link": "missing"}, "link/file", "missing/file"),
        ({"link": "missing/too"}, "link/new/file", "missing/too/new/file"),
        ({"link": "deep-link/..", "deep-link": "real/deep"}, "link/file", "real/file"),
        ({"link": "{storage}/to-deep/..", "to-deep": "real/deep"}, "link/file", "real/file"),
        ({"link": "{storage}/real/../real/./deep"}, "link/file", "real/deep/file"),
        ({"link": "{storage}/../storage/real"}, "link/file", "real/file"),
        ({f"l{n}": f"l{n + 1}" for n in range(39)} | {"l39": "real"}, "l0/file", "real/file"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_link_inside_the_storage_is_followed(
    store: FileStoreManager,
    storage: Path,
    links: dict[str, str],
    name: str,
    place: str,
    size: int,
) -> None:
    (storage / "real" / "deep").mkdir(parents=True)
    for link, target in links.items():
        (storage / link).symlink_to(target.replace("{storage}", str(storage)))
    put(store, name, size)
    assert published(store) == {place: DATA}
    assert (storage / name).read_bytes() == DATA
    assert all((storage / link).is_symlink() for link in links)


@in_one_and_in_several
@pytest.mark.parametrize(
    "links",
    [
        {"link": "../outside"},
        {"link": "{outside}"},
        {"link": ".."},
        {"link": "real/../../outside"},
        {"link": "/"},
        {"link": "/proc/self/root"},
        {"link": "../missing"},
        {"link": "{storage}x"},
        {"link": "other", "other": "../outside"},
        {"link": "real/link", "real/link": "../../outside"},
        {"link": "link"},
        {"link": "other", "other": "link"},
        {"link": "link/link"},
        {"link": ".workdir"},
        {"link": ".txstore"},
        {"link": ".workdir/staging"},
        {"link": "{storage}/.workdir/new"},
        {"link": "real/../.txstore/staging"},
        {"link": "file"},
        {f"l{n}": f"l{n + 1}" for n in range(41)} | {"link": "l0", "l41": "real"},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_link_that_leads_nowhere_allowed_is_refused(
    store: FileStoreManager, storage: Path, outside: Path, links: dict[str, str], size: int
) -> None:
    (storage / "real").mkdir()
    (storage / "file").write_bytes(b"a file")
    for link, target in links.items():
        (storage / link).symlink_to(target.format(storage=storage, outside=outside))
    before = tree(outside)
    for name in ("link/file", "link/new/file", "real/../link/file"):
        refused(store, name, size)
    assert tree(outside) == before
    assert not (storage.parent / "missing").exists()


@in_one_and_in_several
def test_a_storage_that_is_reached_through_a_link_takes_names_and_links(
    tmp_path: Path, size: int
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with FileStoreManager(tmp_path / "link", durability="none") as store:
        (tmp_path / "real" / "absolute").symlink_to(tmp_path / "real" / "a")
        (tmp_path / "real" / "through").symlink_to(tmp_path / "link" / "b")
        for name in ("plain", "absolute/file", "through/file", str(tmp_path / "link" / "c")):
            put(store, name, size, DATA + name.encode())
            assert (tmp_path / "link" / name).read_bytes() == DATA + name.encode()
        assert set(published(store)) == {"plain", "a/file", "b/file", "c"}


@in_one_and_in_several
@pytest.mark.parametrize(
    "name", ["own", "own/file", "alias/file", "own/new/file", "alias/new/file"]
)
def test_a_working_dir_under_a_name_of_its_own_is_no_place_to_store(
    tmp_path: Path, name: str, size: int
) -> None:
    (tmp_path / "storage" / "own").mkdir(parents=True)
    (tmp_path / "storage" / "alias").symlink_to("own")
    with FileStoreManager(
        tmp_path / "storage", tmp_path / "storage" / "alias", durability="none"
    ) as store:
        refused(store, name, size)


@in_one_and_in_several
def test_a_name_in_more_folders_than_can_be_opened_is_refused(
    store: FileStoreManager, size: int
) -> None:
    """Each is a descriptor while the file is published, and other calls need some too."""
    assert "255 folders" in refused(store, "a/" * 256 + "file", size).reason
    put(store, "a/" * 255 + "file", size)
    assert published(store)["a/" * 255 + "file"] == DATA


# A link that is swapped in between check and use


class Swapper(Disk):
    """Does something right before the n-th call that looks at or changes names."""

    def __init__(self) -> None:
        self.calls = 0
        self.at = -1
        self.swap: Callable[[], None] = lambda: None

    def arm(self, at: int, swap: Callable[[], None]) -> None:
        self.calls, self.at, self.swap = 0, at, swap

    def _count(self) -> None:
        if self.calls == self.at:
            self.swap()
        self.calls += 1

    def open_folder(self, name: str, **how: Any) -> int:
        self._count()
        return super().open_folder(name, **how)

    def stat(self, name: str, **how: Any) -> os.stat_result:
        self._count()
        return super().stat(name, **how)

    def read_link(self, name: str, **how: Any) -> str:
        self._count()
        return super().read_link(name, **how)

    def make_folder(self, name: str, mode: int, **how: Any) -> None:
        self._count()
        super().make_folder(name, mode, **how)

    def rename(self, source: str, target: str, **how: Any) -> None:
        self._count()
        super().rename(source, target, **how)


def swap_folder(path: Path, target: str) -> None:
    """Put a link in a folder's place; the folder stays in the storage."""
    path.rename(path.with_name("moved"))
    path.symlink_to(target)


def swap_link(path: Path, target: str) -> None:
    """Have a link lead elsewhere."""
    path.unlink()
    path.symlink_to(target)


def add_link(path: Path, target: str) -> None:
    """Put a link where nothing is, if nothing is yet."""
    if not path.exists():
        path.symlink_to(target)


@in_one_and_in_several
@pytest.mark.parametrize("swap", [swap_folder, swap_link, add_link])
@pytest.mark.parametrize(
    "target", ["../../outside", "{outside}", "{storage}/.workdir", "../a file"]
)
def test_a_link_swapped_in_at_any_moment_leads_nowhere(
    tmp_path: Path, outside: Path, swap: Callable[[Path, str], None], target: str, size: int
) -> None:
    """For every moment: the file is stored whole inside the storage, or refused and kept."""
    disk, before, outcomes = Swapper(), tree(outside), []
    with FileStoreManager(tmp_path / "storage", durability="none", disk=disk) as store:
        storage, working = Path(store.storage_dir), Path(store.working_dir)
        (storage / "a file").write_bytes(b"a file")
        (storage / "real").mkdir()
        target = target.format(outside=outside, storage=storage)
        put(store, "first", SEVERAL)
        own = set(os.listdir(working))
        for at in itertools.count():
            folder = storage / str(at)
            folder.mkdir()
            if swap is swap_folder:
                (folder / "b").mkdir()
            elif swap is swap_link:
                (folder / "b").symlink_to("../real")
            *begun, last = transfer_messages(DATA, size, name=f"{at}/b/file", file_id=str(at))
            for one in begun:
                store.store_segment(one)
            disk.arm(at, partial(swap, folder / "b", target))
            result = outcome(store.store_segment, last)
            assert tree(outside) == before
            assert set(os.listdir(working)) == own
            assert (storage / "a file").read_bytes() == b"a file"
            if isinstance(result, Exception):
                assert isinstance(result, NameRefusedError), result
                last.other_fields["name"] = f"{at}/file"
                assert store.store_segment(last).file_result == "store"
            found = [path.read_bytes() for path in folder.rglob("file")]
            found += [path.read_bytes() for path in (storage / "real").rglob("file")]
            assert found == [DATA]
            assert staged(store) == []
            (storage / "real" / "file").unlink(missing_ok=True)
            outcomes.append(type(result))
            if disk.calls <= at:
                break
    # Swapped before all checks; and, at last, after everything.
    assert outcomes[0] is NameRefusedError
    assert outcomes[-1] is FileStoreSegmentResult
    assert len(outcomes) > 5


# Mount points


def _mount_in_between(tmp_path: str, size: int) -> None:
    """In a process of its own."""
    get_own_mounts()
    storage, elsewhere = Path(tmp_path, "storage"), Path(tmp_path, "elsewhere")
    (storage / "mounted" / "covered").mkdir(parents=True)
    (storage / "outer" / "inner").mkdir(parents=True)
    elsewhere.mkdir()
    mount("--bind", elsewhere, storage / "mounted")
    mount("-t", "tmpfs", "none", storage / "outer" / "inner")
    (storage / "link").symlink_to("mounted")
    with FileStoreManager(storage, durability="none") as store:
        for name in (
            "mounted/file",
            "mounted/new/file",
            "outer/inner/file",
            "outer/inner/new/deep/file",
            "link/file",
        ):
            assert "mount point" in refused(store, name, size).reason
        assert "folder" in refused(store, "mounted", size).reason
        put(store, "outer/file", size)
    assert os.listdir(elsewhere) == []


@in_one_and_in_several
def test_a_mount_point_in_between_is_refused(tmp_path: Path, size: int) -> None:
    apart(_mount_in_between, str(tmp_path), size)


@at_each_level
@in_one_and_in_several
def test_a_file_that_is_mounted_under_the_name_is_refused(
    tmp_path: Path, level: Level, size: int
) -> None:
    """The kernel replaces no mount point."""
    faults = FaultPlan()
    mounted = faults.fail("rename", errno.EBUSY, path="/folder/file", forever=True)
    *begun, last = transfer_messages(DATA, size, name="folder/file")
    with FileStoreManager(tmp_path, durability=level, disk=FaultyDisk(faults)) as store:
        send(store, begun) if begun else None
        for _ in range(2):
            error = outcome(store.store_segment, last)
            assert isinstance(error, NameRefusedError), error
            assert "mount point" in error.reason
            assert error.file_id == "transfer"
        assert mounted.done
        assert folders(store) == set()
        last.other_fields["name"] = "another"
        assert store.store_segment(last).file_result == "store"
        assert published(store) == {"another": DATA}


# Modes


def modes(folder: str | Path) -> dict[str, str]:
    return {name: entry.mode for name, entry in tree(folder).items()}


@at_each_level
@in_one_and_in_several
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_published_files_and_folders_get_the_mode_of_ordinary_ones(
    manager: OpenStore, level: Level, size: int, mask: int, umask: Callable[[int], int]
) -> None:
    store = manager(level)
    storage = Path(store.storage_dir)
    (storage / "replaced").touch(mode=0o600)
    umask(mask)
    (storage / "ordinary").mkdir()
    (storage / "ordinary" / "file").touch()
    wanted = modes(storage)["ordinary"], modes(storage)["ordinary/file"]
    put(store, "folder/inner/file", size)
    put(store, "replaced", size)
    found = modes(storage)
    assert (found["folder"], found["folder/inner/file"]) == wanted
    assert (found["folder/inner"], found["replaced"]) == wanted


@at_each_level
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_stores_own_files_are_the_owners_alone(
    tmp_path: Path, level: Level, mask: int, umask: Callable[[int], int]
) -> None:
    umask(mask)
    check_own_modes(tmp_path, level, 0o600, file="-rw-------", folder="drwx------")


@at_each_level
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_mode_lets_a_group_share_the_stores_own_files(
    tmp_path: Path, level: Level, mask: int, umask: Callable[[int], int]
) -> None:
    umask(mask)
    check_own_modes(tmp_path, level, 0o660, file="-rw-rw----", folder="drwxrwx---")


def check_own_modes(tmp_path: Path, level: Level, mode: int, *, file: str, folder: str) -> None:
    storage, working = tmp_path / "storage", tmp_path / "parent" / "working"
    with FileStoreManager(storage, working, durability=level, mode=mode) as store:
        put(store, "stored", SEVERAL)
        put(store, "also stored", ONE)
        send(store, transfer_messages(DATA, 3, file_id="unfinished")[:3])
        found = {
            path: stat.filemode(path.lstat().st_mode)
            for root in (working, storage / ".txstore")
            for path in (root, *root.rglob("*"))
        }
    assert {path.name for path in found} >= {"journal.db", "journal.db-wal", "journal.db-shm"}
    assert any(path.parent.name == "locks" for path in found)
    assert any(path.parent.name == "staging" for path in found)
    wanted = {path: folder if seen.startswith("d") else file for path, seen in found.items()}
    assert found == wanted


# A group that shares a store


_GROUP = 54321


def _as_member(uid: int, storage: str, messages: list[Any]) -> str | None:
    """In a process of its own, with a umask that leaves the group no writing."""
    become_user(uid, _GROUP)
    os.umask(0o022)
    with FileStoreManager(storage, mode=0o660) as store:
        return send(store, messages).file_result


@pytest.fixture
def shared() -> Iterator[Path]:
    """A storage dir that a group may write into, below folders that all may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        storage = Path(folder, "storage")
        storage.mkdir()
        if os.geteuid() == 0:
            os.chown(storage, 0, _GROUP)
        storage.chmod(0o770)
        yield storage


def test_members_of_a_group_take_turns_in_one_transfer(shared: Path) -> None:
    """Any of them takes the next segment, the last one too, whoever began."""
    one, two, three = transfer_messages(DATA, SEVERAL)
    assert apart(_as_member, 54001, str(shared), [one]) is None
    assert apart(_as_member, 54002, str(shared), [two]) is None
    assert apart(_as_member, 54003, str(shared), [three]) == "store"
    found = shared / "file.bin"
    assert found.read_bytes() == DATA
    assert stat.filemode(found.stat().st_mode) == "-rw-r--r--"
    again = transfer_messages(DATA[::-1], SEVERAL, file_id="again")
    assert apart(_as_member, 54002, str(shared), again) == "store"
    assert found.read_bytes() == DATA[::-1]


def _die_in_the_last_message(
    uid: int, storage: str, level: Level, call: str, messages: list[Any]
) -> None:
    become_user(uid, _GROUP)
    os.umask(0o022)
    *begun, last = messages
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    store = FileStoreManager(storage, mode=0o660, durability=level, disk=disk)
    send(store, begun)
    if call == "chmod":
        faults.crash("chmod", path="/staging/", after=True)
    else:
        faults.crash(call, path="file.bin")
    with pytest.raises(SimulatedCrash):
        store.store_segment(last)
    disk.bury()


def _go_on_as_member(uid: int, storage: str, level: Level, last: Any) -> None:
    become_user(uid, _GROUP)
    os.umask(0o022)
    with FileStoreManager(storage, mode=0o660, durability=level) as store:
        found = store.status("transfer")
        assert found is not None
        assert found.state in ("receiving", "stored")
        assert store.store_segment(last).file_result == "store"
        assert store.store_segment(last).file_result == "store"
        assert (published(store), staged(store)) == ({"file.bin": DATA}, [])


@pytest.mark.parametrize("call", ["chmod", "rename"])
@at_each_level
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_a_member_goes_on_where_another_died_in_its_last_message(
    shared: Path, level: Level, call: str
) -> None:
    """The staging file has a published file's mode by then, which leaves the group no writing."""
    messages = transfer_messages(DATA, SEVERAL)
    apart(_die_in_the_last_message, 54001, str(shared), level, call, messages)
    apart(_go_on_as_member, 54002, str(shared), level, messages[-1])
    found = shared / "file.bin"
    assert stat.filemode(found.stat().st_mode) == "-rw-r--r--"


def _store_into_a_drop_box(storage: str) -> None:
    become_user(65534, 65534)
    with FileStoreManager(storage, working_dir=f"{storage}/../working") as store:
        Path(storage, "box").mkdir(mode=0o300)
        for size in (ONE, SEVERAL):
            messages = transfer_messages(DATA, size, name=f"box/{size}", file_id=str(size))
            assert send(store, messages).file_result == "store"
        assert store.transfers() == []


def test_a_folder_that_nobody_may_list_can_be_stored_into() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        apart(_store_into_a_drop_box, f"{folder}/storage")
        found = {path.name: path.read_bytes() for path in Path(folder, "storage", "box").iterdir()}
        assert found == {str(ONE): DATA, str(SEVERAL): DATA}


def test_an_absolute_link_leads_where_the_kernel_says_for_readers_too(
    store: FileStoreManager, storage: Path
) -> None:
    for name in ("deep/inner", "deep/other", "other"):
        (storage / name).mkdir(parents=True)
    (storage / "inner").symlink_to(storage / "deep" / "inner")
    (storage / "link").symlink_to(f"{storage}/inner/../other")
    (storage / "other" / "file").write_bytes(b"another one")
    send(store, transfer_messages(DATA, ONE, name="link/file"))
    assert (storage / "deep" / "other" / "file").read_bytes() == DATA
    with StoredFiles(store.storage_dir, store.working_dir).open("link/file").file as file:
        assert file.read() == DATA
