"""A working dir on a network file system is refused: locks there do not reach other machines."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support import message, published, send, transfer_messages

from txstore import FileStoreManager
from txstore.errors import NetworkFileSystemError, PathTooLongError, UnfitFileSystemError
from txstore.local.files.disk import Disk
from txstore.local.files.machine import NETWORK_FILE_SYSTEMS


class NetworkDisk(Disk):
    """A disk on which one folder, and what is below it, is mounted from elsewhere."""

    def __init__(self, folder: Path, fstype: str) -> None:
        self._folder, self._fstype = folder, fstype

    def file_system(self, fd: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        return self._fstype if path.is_relative_to(self._folder) else super().file_system(fd)


OF_PROGRAMS = """fuse fuse.juicefs fuse.rclone fuse.gcsfuse gcsfuse fuse.ceph-fuse fuse.mfs
    fuse.blobfuse2 fuse.grpcfuse grpcfuse fuse.sshfs fuse.never-heard-of"""


@pytest.mark.parametrize("fstype", [*sorted(NETWORK_FILE_SYSTEMS), *OF_PROGRAMS.split()])
def test_a_working_dir_on_a_network_is_refused(tmp_path: Path, fstype: str) -> None:
    with pytest.raises(NetworkFileSystemError) as caught:
        FileStoreManager(tmp_path, disk=NetworkDisk(tmp_path, fstype))
    assert caught.value.path == str(tmp_path / ".workdir")
    assert caught.value.fstype == fstype
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_the_refusal_says_why_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NetworkFileSystemError) as caught:
        FileStoreManager(tmp_path, disk=NetworkDisk(tmp_path, "nfs4"))
    text = str(caught.value)
    assert str(tmp_path / ".workdir") in text
    assert "nfs4" in text
    for word in ("lock", "working dir", "local", "allow_network_fs"):
        assert word in text, f"{word!r} is missing in {text!r}"


def test_a_refused_store_has_no_journal_and_no_locks(tmp_path: Path) -> None:
    with pytest.raises(NetworkFileSystemError):
        FileStoreManager(tmp_path, disk=NetworkDisk(tmp_path, "nfs4"))
    assert list((tmp_path / ".workdir").iterdir()) == []
    FileStoreManager(tmp_path).close()  # and the same folders can be used once they are local


def test_the_caller_may_say_otherwise(tmp_path: Path) -> None:
    disk = NetworkDisk(tmp_path, "nfs4")
    with FileStoreManager(tmp_path, allow_network_fs=True, disk=disk) as store:
        send(store, transfer_messages(b"over the network", 5, name="file"))
        assert published(store) == {"file": b"over the network"}


def test_only_the_working_dir_must_be_local(tmp_path: Path) -> None:
    """Published files may lie on a network: what needs locks is below the working dir."""
    storage, working = tmp_path / "storage", tmp_path / "working"
    with FileStoreManager(storage, working, disk=NetworkDisk(storage, "nfs4")) as store:
        store.store_segment(message(b"x", segment_number="1"))
    with pytest.raises(NetworkFileSystemError):
        FileStoreManager(storage, working, disk=NetworkDisk(working, "nfs4"))


@pytest.mark.parametrize(
    "fstype", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs", ""]
)
def test_local_and_unknown_file_systems_are_taken(tmp_path: Path, fstype: str) -> None:
    FileStoreManager(tmp_path, disk=NetworkDisk(tmp_path, fstype)).close()


def test_the_file_system_is_the_one_that_holds_the_folder() -> None:
    for folder, wanted in (("/proc", "proc"), ("/sys", "sysfs")):
        if os.path.ismount(folder):
            fd = os.open(folder, os.O_RDONLY)
            try:
                assert Disk().file_system(fd) == wanted
            finally:
                os.close(fd)


class Lacking(Disk):
    """A disk whose file system does not have a call."""

    def __init__(self, number: int) -> None:
        self._number = number

    def file_system(self, _fd: int) -> str:
        return "somefs"


class WithoutLinks(Lacking):
    def link(self, *_: object, **__: object) -> None:
        raise OSError(self._number, os.strerror(self._number))


class WithoutFolderFlush(Lacking):
    def flush_folder(self, _fd: int) -> None:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize(("disk", "call"), [(WithoutLinks, "link"), (WithoutFolderFlush, "fsync")])
def test_a_file_system_without_a_call_is_named_with_it(
    tmp_path: Path, disk: type[Lacking], call: str, number: int
) -> None:
    with pytest.raises(UnfitFileSystemError) as caught:
        FileStoreManager(tmp_path, disk=disk(number))
    assert (caught.value.fstype, caught.value.errno) == ("somefs", number)
    assert call in caught.value.call
    assert "somefs" in str(caught.value)


def below(folder: Path, length: int) -> Path:
    """A path of so many bytes below a folder."""
    while (missing := length - len(str(folder))) > 0:
        # Two bytes are the least that a folder adds.
        folder /= "d" * (missing - 1 if missing <= 100 else 50)
    return folder


def test_a_path_that_sqlite_cannot_open_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder = below(tmp_path, 500)
    with pytest.raises(PathTooLongError, match="shorter path") as caught:
        FileStoreManager(folder)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert caught.value.length > caught.value.limit
    assert list(tmp_path.iterdir()) == []


def test_the_longest_path_that_is_not_refused_can_be_opened(tmp_path: Path) -> None:
    storage, length = tmp_path / "storage", 504 - len("/new-") - 32
    with FileStoreManager(storage, below(tmp_path, length)) as store:
        assert store.transfers() == []
    with pytest.raises(PathTooLongError):
        FileStoreManager(tmp_path / "other", below(tmp_path, length + 2))
