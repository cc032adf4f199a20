"""Files that were published: whether they are there whole still, and durable."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from txstore.errors import NameRefusedError
from txstore.local.files.content import has_content
from txstore.local.files.flushed import FlushedFolders
from txstore.local.files.home import Home
from txstore.local.files.places import Places, place_of
from txstore.local.journal.rows import Completion


class Published:
    """Looks after published files for one manager; never writes one.  Thread-safe."""

    def __init__(self, home: Home, places: Places, folders: FlushedFolders) -> None:
        self._home, self._disk, self._places, self._folders = home, home.disk, places, folders

    def still_there(self, done: Completion) -> bool:
        """Whether a published file is as it was published; where a power loss can have touched it
        it is read whole."""
        place = place_of(done.place)
        try:
            with self._places.look(place) as parents:
                found = self._disk.stat(place[-1], dir_fd=parents.folder)
                as_published = (found.st_ino, found.st_size, found.st_mtime_ns) == (
                    done.inode,
                    done.size,
                    done.mtime_ns,
                )
                if as_published and not done.durable and not self._home.is_this_boot(done.boot):
                    return has_content(self._disk, place[-1], parents.folder, done.sha256)
                return as_published
        except (FileNotFoundError, NameRefusedError):
            return False

    def make_durable(self, done: Completion, forget: Callable[[], object]) -> None:
        """Make a published file and its name durable: whoever published it may not have.

        :param forget: called where the file's flush fails
        """
        place = place_of(done.place)
        with self._places.look(place) as parents:
            self.flush_file(place[-1], parents.folder, forget)
            self._folders.flush_parents(parents)
            self._home.flush_folder(parents.folder)

    def flush_file(self, name: str, folder: int, forget: Callable[[], object]) -> None:
        """Make a file's bytes and mode durable.

        :param forget: called where that fails
        """
        fd = None
        with suppress(PermissionError):  # another user's, who lets nobody read it
            fd = self._disk.open(name, dir_fd=folder, write=False)
        try:
            if fd is None:
                self._disk.flush_file_system(self._home.storage)
            else:
                self._disk.flush_all(fd)
        except OSError:
            # The next flush may succeed without what this one lost; its sender begins again.
            forget()
            raise
        finally:
            if fd is not None:
                self._disk.close(fd)
