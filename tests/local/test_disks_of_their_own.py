"""Full disks, and full quotas, of the file systems that people have: loop-mounted ones.

Each is filled to its last block.  What has to work without space works, in the open store and in a
new process, and nothing kills the process: SQLite maps a file of the journal, and touching a page
of it that has no block is a SIGBUS.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from crew import Worker, apart, last, segment, staging_files
from support import message

from txstore import FileStoreManager
from txstore.errors import JournalError, NameRefusedError

pytestmark = pytest.mark.promise(6)

NAMES = [f"file{number}" for number in range(12)]

#: name: (what makes it, size in MiB, options of the mount)
KINDS: dict[str, tuple[list[str], int, str]] = {
    "ext4 with blocks of 1 KiB": (["mkfs.ext4", "-q", "-b", "1024"], 40, "loop"),
    "btrfs": (["mkfs.btrfs", "-q"], 256, "loop"),
    "btrfs with mixed groups": (["mkfs.btrfs", "-q", "-M"], 128, "loop"),
    "btrfs over a quota": (["mkfs.btrfs", "-q"], 256, "loop"),
    "overlay on btrfs": (["mkfs.btrfs", "-q"], 256, "loop"),
    "xfs": (["mkfs.xfs", "-q"], 300, "loop"),
    "xfs over a quota": (["mkfs.xfs", "-q"], 300, "loop,prjquota"),
}


def run(*command: str | Path) -> None:
    """Run a command of the system, or skip the test where it is missing or not allowed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"there is no {command[0]} here")
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{command[0]}: {(done.stderr or done.stdout).strip()[-200:]}")


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a small file system, or with a small quota."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    make, size, options = KINDS[request.param]
    image, folder = tmp_path / "image", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(size << 20)
    run(*make, image)
    folder.mkdir()
    run("mount", "-o", options, image, folder)
    try:
        yield prepared(request.param, folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def prepared(kind: str, folder: Path) -> Path:
    if kind == "overlay on btrfs":
        lower, upper, work, merged = (folder / name for name in ("lower", "upper", "work", "all"))
        for one in (lower, upper, work, merged):
            one.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "-o", options, "none", merged)
        return merged
    if kind == "btrfs over a quota":
        run("btrfs", "quota", "enable", folder)
        run("btrfs", "subvolume", "create", folder / "limited")
        run("btrfs", "qgroup", "limit", "60M", folder / "limited")
        return folder / "limited"
    if kind == "xfs over a quota":
        (folder / "limited").mkdir()
        run("xfs_quota", "-x", "-c", f"project -s -p {folder}/limited 7", folder)
        run("xfs_quota", "-x", "-c", "limit -p bhard=40m 7", folder)
        return folder / "limited"
    return folder


def fill(folder: Path) -> Path:
    """Take what is left, to the last block; the file that has it."""
    hog = folder / "hog"
    for _ in range(3):  # some give back what they had set aside only when they are pressed
        with open(hog, "ab", buffering=0) as file:
            for size in (1 << 18, 1 << 12, 512, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
            with suppress(OSError):
                os.fsync(file.fileno())
    return hog


def filled(disk: Path, level: str) -> Worker:
    """A store with some transfers, on a disk that was filled afterwards."""
    worker = Worker(disk / "storage", durability=level)
    for name in NAMES:
        assert worker.store_segment(segment(name, 1, b"begun")).segments_received == 1
    os.sync()  # what was written is on the device: changing it may need space again
    return worker


def works(worker: Worker, names: list[str]) -> None:
    assert [one.file_id for one in worker.call("transfers")] == names
    found = worker.status(names[0])
    assert found is not None
    assert (found.segments_received, found.bytes_received) == (1, 5)
    assert worker.status("unknown") is None
    for name in names[:3]:
        os.sync()
        assert worker.call("cancel", name).segments_received == 1
    with suppress(OSError):  # refused, or not: what was cancelled has left some room
        worker.store_segment(segment("new", 1, bytes(1 << 20)))
        worker.call("cancel", "new")
    assert [one.file_id for one in worker.call("transfers")] == names[3:]


at_both = pytest.mark.parametrize("level", ["segment", "none"])


@at_both
def test_an_open_store_works_on_a_full_disk(disk: Path, level: str) -> None:
    with filled(disk, level) as worker:
        fill(disk)
        works(worker, NAMES)
        fill(disk)
        works(worker, NAMES[3:])


@at_both
def test_a_new_process_works_on_a_full_disk(disk: Path, level: str) -> None:
    filled(disk, level).close()
    fill(disk)
    for names in (NAMES, NAMES[3:]):
        with Worker(disk / "storage", durability=level) as worker:
            works(worker, names)
    with Worker(disk / "storage", durability=level, expire_after=0) as worker:
        assert worker.call("expire") == NAMES[6:]
        assert staging_files(disk / "storage" / ".workdir") == []


def test_a_new_process_works_beside_an_open_store(disk: Path) -> None:
    with filled(disk, "segment") as first:
        hog = fill(disk)
        with Worker(disk / "storage") as second:
            works(second, NAMES)
        works(first, NAMES[3:])
        hog.unlink()
        assert first.store_segment(segment(NAMES[6], 2, bytes(1 << 20))).segments_received == 2


@pytest.mark.parametrize("disk", ["xfs"], indirect=True)
def test_whatever_little_is_left_lack_of_space_is_called_so(disk: Path) -> None:
    """XFS wants more for a name than for bytes; SQLite only says that it cannot open a file."""
    for left in range(200, 264, 16):
        room = disk / "room"
        room.write_bytes(os.urandom(left << 10))
        os.sync()
        hog = fill(disk)
        room.unlink()
        os.sync()
        found: int | None = errno.ENOSPC
        try:
            Worker(disk / "storage").close()
        except OSError as error:
            found = error.errno
        assert found == errno.ENOSPC, f"with {left} KiB left"
        hog.unlink()
        shutil.rmtree(disk / "storage")


def _limited(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        store.store_segment(segment("file", 1, b"begun"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))
        assert store.store_segment(segment("file", 2, b"more")).segments_received == 2
        assert store.cancel("file").segments_received == 2


@pytest.mark.parametrize("disk", ["btrfs"], indirect=True)
def test_a_limit_on_the_size_of_files_is_no_full_disk(disk: Path) -> None:
    apart(_limited, disk / "storage")


#: ``EXT4_IOC_SHUTDOWN``, and what it is to do: nothing more is written.
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)


@pytest.mark.parametrize("disk", ["ext4 with blocks of 1 KiB"], indirect=True)
def test_a_disk_that_is_gone_is_no_damaged_journal(disk: Path) -> None:
    """Of a page that it cannot read SQLite says that the database is malformed."""
    filled(disk, "segment").close()
    with Worker(disk / "storage") as worker:
        folder = os.open(disk, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(folder)
        with pytest.raises(JournalError) as caught:
            worker.call("consumers")  # which it has not read yet
        assert caught.value.errno == errno.EIO


SUBVOLUMES = pytest.mark.parametrize("disk", ["btrfs"], indirect=True)


@SUBVOLUMES
def test_folders_in_two_subvolumes_cost_no_copy(disk: Path) -> None:
    for name in ("storage", "working"):
        run("btrfs", "subvolume", "create", disk / name)
    with Worker(disk / "storage", disk / "working") as worker:
        worker.store_segment(segment("file", 1, b"begun"))
        [staged] = (disk / "storage" / ".txstore" / "staging").iterdir()
        inode = staged.stat().st_ino
        worker.store_segment(last("file", 2, b"", "deep/file", b"begun"))
        assert (disk / "storage" / "deep" / "file").stat().st_ino == inode


@SUBVOLUMES
def test_a_subvolume_below_the_storage_is_refused_as_soon_as_the_name_is_known(disk: Path) -> None:
    (disk / "storage").mkdir()
    run("btrfs", "subvolume", "create", disk / "storage" / "below")
    with Worker(disk / "storage") as worker:
        named = message(b"begun", file_id="file", segment_number="1", name="below/file")
        with pytest.raises(NameRefusedError):
            worker.store_segment(named)
        assert worker.call("transfers") == []


#: What gives another name's file, or a snapshot, the store's own blocks.
SHARING = {
    "btrfs": ("btrfs", "subvolume", "snapshot", "."),
    "xfs": ("cp", "-a", "--reflink=always", "storage"),
}
sharing = pytest.mark.parametrize(("disk", "command"), SHARING.items(), indirect=["disk"])


def share(disk: Path, command: tuple[str, ...]) -> None:
    *before, of_all = command
    run(*before, disk / of_all, disk / "copy")


@sharing
def test_nothing_kills_who_shares_blocks_with_a_copy(disk: Path, command: tuple[str, ...]) -> None:
    with filled(disk, "segment") as worker:
        share(disk, command)
        hog = fill(disk)
        for method, *args in (("transfers",), ("status", NAMES[0]), ("cancel", NAMES[0])):
            with suppress(JournalError):  # what is kept for a full disk is the copy's, too
                worker.call(method, *args)
        hog.unlink()
        assert worker.store_segment(segment(NAMES[1], 2, b"more")).segments_received == 2


@sharing
def test_what_a_copy_shares_is_kept_anew(disk: Path, command: tuple[str, ...]) -> None:
    with filled(disk, "segment") as worker:
        share(disk, command)
        worker.call("expire")  # as a service does by itself
        fill(disk)
        works(worker, NAMES)
    fill(disk)
    with Worker(disk / "storage") as worker:
        works(worker, NAMES[3:])
