"""Whether the journal's paths still lead to the files that SQLite has open."""

from __future__ import annotations

import os

from txstore.errors import ReplacedError
from txstore.local.files.descriptors import Inode, inode_of
from txstore.local.files.disk import UNKNOWN, Disk, settled


class OpenFiles:
    """The journal and what SQLite keeps beside it.  Used with the journal's mutex held.

    Only ever looked at: closing a descriptor of them would drop SQLite's locks.

    :ivar folder: that they lie in
    :ivar version: of its names, when they were all in place; as long as it has that they are
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk, self._path, self.folder = disk, path, os.path.dirname(path)
        # Who finds no -shm makes a new one: then two indexes stand over one WAL, and each writer
        # writes over the other's commits.
        self._inodes: dict[str, Inode] = {}
        self.version = UNKNOWN

    def inode(self, suffix: str = "") -> Inode:
        """Device and inode of one of them, by its whole path, so that a folder that was moved or
        replaced is noticed too.

        :raises ReplacedError: there is none
        """
        try:
            found = self._disk.stat(self._path + suffix)
        except (FileNotFoundError, NotADirectoryError):
            raise ReplacedError(self._path + suffix, "journal") from None
        return inode_of(found)

    @property
    def opened(self) -> dict[str, Inode]:
        """What was opened last, by suffix; empty before."""
        return self._inodes

    def were_opened(self, journal: Inode, wal: Inode) -> None:
        """Note what a connection has opened.

        :param journal: as it was before the connection was made
        :raises ReplacedError: it is another now, or was for an earlier connection
        """
        shm = self.inode("-shm")
        if self.inode() != journal or self._inodes.get("", journal) != journal:
            raise ReplacedError(self._path, "journal")
        self._inodes = {"": journal, "-shm": shm, "-wal": wal}
        self.version = UNKNOWN

    def check_in_place(self) -> None:
        """:raises ReplacedError: a path does not lead to the open file any more"""
        version = self._disk.names_version(self.folder)
        for suffix in self._inodes:
            self.check_one_in_place(suffix)
        self.version = settled(version)

    def check_removable(self) -> None:
        """Check, before SQLite removes the WAL, that its path leads to no other one: of somebody
        who found this journal gone.

        :raises ReplacedError: it does, or there is another journal
        """
        for suffix in ("", "-wal"):
            try:
                found = self._disk.stat(self._path + suffix)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if (found.st_dev, found.st_ino) != self._inodes.get(suffix):
                raise ReplacedError(self._path + suffix, "journal")

    def check_one_in_place(self, suffix: str = "") -> None:
        """As ``check_in_place``, of one of them, if it was opened."""
        if suffix in self._inodes and self.inode(suffix) != self._inodes[suffix]:
            raise ReplacedError(self._path + suffix, "journal")
