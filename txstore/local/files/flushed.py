"""Which folders' names this process made durable: whoever made them may have died before its own
flush."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from txstore.local.files.descriptors import close_ours
from txstore.local.files.home import Home
from txstore.local.files.places import Parents
from txstore.process import threads

_KEPT = 64  # folders that are remembered, each pinned by a descriptor

#: Device and inode of a folder, a name in it, device and inode of the folder that it leads to.
_Flushed = tuple[int, int, str, int, int]


class FlushedFolders:
    """Flushes the names of folders, each once.  Thread-safe; ``disown`` in a forked child."""

    def __init__(self, home: Home) -> None:
        self._home, self._disk = home, home.disk
        self._mutex = threads.new_lock()
        self._flushed: OrderedDict[_Flushed, int] = OrderedDict()

    def flush_parents(self, parents: Parents) -> None:
        """Make the names of a place's parents durable, where this process has not done so yet."""
        folders = list(zip(parents.names, parents.fds, strict=True))
        for (_, above), (name, below) in pairwise(folders):
            inside, found = self._disk.fstat(above), self._disk.fstat(below)
            # With its name: a folder that was renamed is durable under the old one only.
            key = (inside.st_dev, inside.st_ino, name, found.st_dev, found.st_ino)
            with self._mutex:
                known = key in self._flushed
            if not known:
                self._home.flush_folder(above)
                self._remember(key, below)

    def _remember(self, key: _Flushed, folder: int) -> None:
        # An open descriptor keeps the inode's number from being used for another folder.
        pin = self._disk.open_folder(".", dir_fd=folder)
        with self._mutex:
            spare = [self._flushed.pop(key)] if key in self._flushed else []
            self._flushed[key] = pin
            if len(self._flushed) > _KEPT:
                spare.append(self._flushed.popitem(last=False)[1])
        for fd in spare:
            self._disk.close(fd)

    def close(self) -> None:
        with self._mutex:
            while self._flushed:
                self._disk.close(self._flushed.popitem()[1])

    def let_go(self) -> None:
        """After a call of this thread was cut off."""
        threads.let_go(self._mutex)

    def disown(self) -> None:
        """Let go of folders that another process opened, or that were closed by their numbers."""
        while self._flushed:
            key, fd = self._flushed.popitem()
            close_ours(self._disk, fd, key[3:])
