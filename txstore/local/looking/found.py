"""The two folders of a store as they are found: opened for reading, and nothing is made."""

from __future__ import annotations

import os

from txstore.local.files.disk import Disk
from txstore.local.files.folders import STAGING, Folders, check_apart
from txstore.protocol.names import HIDDEN


class Found(Folders):
    """Descriptors of what is there.

    :ivar stagings: descriptors of the staging folders, by the letter that their files' names begin
        with
    :raises FileNotFoundError: one of the two folders is not there
    """

    def __init__(
        self,
        disk: Disk,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None,
    ) -> None:
        super().__init__(disk, storage_dir, working_dir)
        self.stagings: dict[str, int] = {}
        try:
            self.storage = self._keep(disk.open_folder(self.storage_dir, follow=True))
            self.working = self._keep(disk.open_folder(self.working_dir, follow=True))
            check_apart(*self._real())
            self._keep_staging("w", self.working, STAGING)
            self._keep_staging("s", self.storage, os.path.join(HIDDEN, STAGING))
            self._find_boot(self.stagings.get("w", self.working))
        except BaseException:
            self.close()
            raise

    def _keep_staging(self, letter: str, folder: int, name: str) -> None:
        try:
            fd = self.disk.open_folder(name, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        self.stagings[letter] = self._keep(fd)

    def has(self, name: str) -> bool:
        """Whether there is a file in the working dir."""
        return self.links(name) > 0

    def links(self, name: str) -> int:
        """How many names a file in the working dir has; 0: there is none."""
        try:
            return self.disk.stat(name, dir_fd=self.working).st_nlink
        except FileNotFoundError:
            return 0
