"""The two folders a store lives in, as whoever looks at them finds them; nothing is made here.

Below the working dir: ``journal.db`` (with SQLite's ``-wal`` and ``-shm``), ``locks/``,
``staging/`` and ``journal.reserve``.  Below the storage dir: the published files and ``.txstore/``,
the store's hidden folder, with the marker ``store`` (which working dir belongs here) and, where the
working dir cannot be renamed from, ``staging/``.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass

from txstore.errors import OptionError, StoreMismatchError, UnsupportedPlatformError
from txstore.local.clock import Clock
from txstore.local.files.descriptors import Inode, inode_of
from txstore.local.files.disk import Disk
from txstore.local.files.machine import is_supported
from txstore.protocol.names import DEFAULT_WORKING_DIR, HIDDEN, is_within

JOURNAL = "journal.db"
STAGING, LOCKS, MARKER = "staging", "locks", "store"
#: A marker that is being written.
TEMPORARY_MARKER = re.compile(r"store-[0-9a-f]{32}\Z")


@dataclass(frozen=True)
class Marker:
    """What the storage dir says of its working dir.

    :ivar store_id: identity that the journal has too
    :ivar working_dir: path relative to the storage dir
    """

    store_id: str
    working_dir: str


class Folders:
    """Where everything is, and what the folders say of each other.

    :ivar storage_dir: absolute path, as given
    :ivar working_dir: absolute path, as given or ``<storage_dir>/.workdir``
    :ivar storage: descriptor of the storage dir
    :ivar working: descriptor of the working dir
    :ivar clock: tells the time
    :ivar boot: identity of this boot of the machine and of the devices; empty where it is not known
    """

    storage: int
    working: int
    boot: str = ""
    clock: Clock
    _resolved: tuple[str, str] | None = None

    def __init__(
        self,
        disk: Disk,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None,
    ) -> None:
        if not is_supported():
            raise UnsupportedPlatformError(os.name)
        self.disk = disk
        if not os.fspath(storage_dir):
            # It would mean the current folder, which nobody meant whose variable is not set.
            raise OptionError(
                "storage_dir is empty: it must be the path of a folder.",
                option="storage_dir",
                received=storage_dir,
            )
        self.storage_dir = _absolute(storage_dir)
        self.working_dir = (
            _absolute(working_dir)
            if working_dir
            else os.path.join(self.storage_dir, DEFAULT_WORKING_DIR)
        )
        check_apart(self.storage_dir, self.working_dir)
        self._fds: list[int] = []
        self._inodes: dict[int, Inode] = {}

    def is_this_boot(self, boot: str) -> bool:
        """Whether what a row says of its boot means this one; an unknown boot is always another."""
        return boot == self.boot != ""

    def _find_boot(self, staging: int) -> None:
        """Find out which boot this is, of the devices of a staging folder and the storage dir."""
        boot, ahead = self.disk.boot_id(), self.disk.clock_ahead()
        devices = [self.disk.fstat(fd).st_dev for fd in (staging, self.storage)]
        # Where nobody could compare their times with ours, they are those of an unknown boot.
        is_known = boot and ahead is not None
        self.boot = ":".join(map(str, (boot, *devices))) if is_known else ""
        self.clock = Clock(self.boot, ahead or 0.0)

    # --- paths -------------------------------------------------------------------------------

    @property
    def journal_path(self) -> str:
        return os.path.join(self.working_dir, JOURNAL)

    @property
    def locks_path(self) -> str:
        return os.path.join(self.working_dir, LOCKS)

    def staging_path(self, name: str) -> str:
        """Absolute path of a staging file, for messages to people."""
        return os.path.join(self.staging_folder_path(name[0]), name)

    def staging_folder_path(self, letter: str) -> str:
        """Absolute path of a staging folder, by the letter that its files' names begin with."""
        if letter == "s":
            return os.path.join(self.storage_dir, HIDDEN, STAGING)
        return os.path.join(self.working_dir, STAGING)

    def has_hidden_staging(self) -> bool:
        """Whether the hidden folder for staging was ever made."""
        try:
            self.disk.stat(os.path.join(HIDDEN, STAGING), dir_fd=self.storage)
        except FileNotFoundError:
            return False
        return True

    def own_folders(self) -> frozenset[tuple[int, int]]:
        """(device, inode) of the folders in which nothing may be stored."""
        found = [self.disk.fstat(self.working)]
        with suppress(FileNotFoundError):  # made later: then its name is what refuses it
            found.append(self.disk.stat(HIDDEN, dir_fd=self.storage))
        return frozenset((one.st_dev, one.st_ino) for one in found)

    # --- belonging together ------------------------------------------------------------------

    def relative_storage_dir(self) -> str:
        """The storage dir as seen from the working dir: stays true when both move together."""
        return os.path.relpath(*self._real())

    def relative_working_dir(self) -> str:
        """The working dir as seen from the storage dir."""
        storage_dir, working_dir = self._real()
        return os.path.relpath(working_dir, storage_dir)

    def _real(self) -> tuple[str, str]:
        """Both folders with all links resolved: once they are open, as they were then."""
        return self._resolved or (
            os.path.realpath(self.storage_dir),
            os.path.realpath(self.working_dir),
        )

    def read_marker(self) -> Marker | None:
        """What the storage dir says, if it says anything."""
        path = os.path.join(HIDDEN, MARKER)
        try:
            fd = self.disk.open(path, dir_fd=self.storage, write=False)
        except FileNotFoundError:
            return None
        try:
            text = self.disk.pread(fd, 65536, 0)
        finally:
            self.disk.close(fd)
        try:
            found = json.loads(text)
            return Marker(str(found["store"]), str(found["working_dir"]))
        except (ValueError, KeyError, TypeError):
            return None  # torn by a power loss before the journal was there: written anew

    def check_marker(self, marker: Marker | None, store_id: str | None, recorded: str) -> bool:
        """Whether the marker is right; ``False`` means: write it.

        :param store_id: the journal's; ``None`` where there is no journal yet
        :param recorded: storage dir relative to the working dir, as the journal has it
        :raises StoreMismatchError: the storage dir belongs to another working dir, or the other
            way round
        """
        if store_id is None:
            if marker is None or marker.working_dir == self.relative_working_dir():
                return False
            other = os.path.normpath(
                os.path.join(os.path.realpath(self.storage_dir), marker.working_dir)
            )
            if os.path.exists(os.path.join(other, JOURNAL)):
                raise self._mismatch(f"belongs to the working dir {other!r}")
            return False
        if marker is not None and marker.store_id != store_id:
            raise self._mismatch("belongs to another store")
        if marker is None and recorded != self.relative_storage_dir():
            raise self._mismatch("does not hold this store's files")
        return marker is not None

    def _mismatch(self, what: str) -> StoreMismatchError:
        return StoreMismatchError(
            f"The storage dir {self.storage_dir!r} {what}, so it cannot be used with the working"
            f" dir {self.working_dir!r}. Use the pair of folders that belongs together; to move a"
            " store, move both.",
            storage_dir=self.storage_dir,
            working_dir=self.working_dir,
        )

    # --- descriptors -------------------------------------------------------------------------

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        self._inodes[fd] = inode_of(self.disk.fstat(fd))
        return fd

    def close(self) -> None:
        while self._fds:
            self.disk.close(self._fds.pop())


def check_apart(storage_dir: str, working_dir: str) -> None:
    """:raises OptionError: one of two paths must not lie where it does"""
    if is_within(storage_dir, working_dir):
        raise not_apart(storage_dir, working_dir)
    if is_within(working_dir, os.path.join(storage_dir, HIDDEN)):
        raise OptionError(
            f"The working dir {working_dir!r} must not lie in the store's hidden folder.",
            option="working_dir",
            received=working_dir,
        )


def not_apart(storage_dir: str, working_dir: str) -> OptionError:
    """The error for a working dir that is, or contains, the storage dir."""
    return OptionError(
        f"The working dir {working_dir!r} must not be or contain the storage dir {storage_dir!r}."
        " Choose another working dir, or none for the default.",
        option="working_dir",
        received=working_dir,
    )


def _absolute(path: str | os.PathLike[str]) -> str:
    """As ``abspath``, which keeps two slashes in front although they name the same folder."""
    return os.sep + os.path.abspath(os.fsdecode(path)).lstrip(os.sep)
