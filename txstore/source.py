"""A local file on its way into a store, on this machine or on a fabric.

It is held to what it was when it was opened, and cut into messages from where the store is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator

from txstore.errors import FileChangedError
from txstore.protocol.constants import FileStoreProp, FileStoreResultProp

_SLICE = 8 * 2**20


class Source:
    """A regular file, and how much of it the store has.  For one thread at a time.

    :param path: the file
    :param name: what it is to be stored as
    :ivar path: without symbolic links, so that every way to write it means the same file
    :ivar size: bytes that it had when it was opened
    :ivar mtime_ns: when it had been modified last then, in ns since 1970
    :ivar offset: bytes of it that the store has
    :raises OSError: it cannot be read, or is no regular file
    """

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self.path, self.name = os.fspath(path), name
        # Without O_NONBLOCK a named pipe would wait here for somebody who writes to it.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        facts = self.facts()
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            raise _irregular(self.path, facts.st_mode)
        self.path = self._real_path()
        self.size, self.mtime_ns = facts.st_size, facts.st_mtime_ns
        self.rewind()

    def facts(self) -> os.stat_result:
        """What is told of the file now, its mode and time among it."""
        return os.fstat(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at ``offset``: ``length`` of them, fewer only where the file ends.

        :raises FileChangedError: the file ends before it did when it was opened
        :raises OSError: the disk failed
        """
        length = min(length, self.size - offset)
        pieces = []
        while length > 0:
            piece = os.pread(self._descriptor, length, offset)
            if not piece:
                raise self._changed()
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def rewind(self) -> None:
        """The store has nothing of it."""
        self.offset = 0
        self._hash = hashlib.sha256()

    def move_to(self, offset: int) -> Iterator[int]:
        """The store has the first ``offset`` bytes: hash them, yielding how far that is.

        Going on reads only what is new.  Going back reads from the start again.
        """
        if offset < self.offset:
            self.rewind()
        while self.offset < offset:
            self.acknowledged(self.read(self.offset, min(_SLICE, offset - self.offset)))
            yield self.offset

    def acknowledged(self, payload: bytes) -> None:
        """The store has these bytes too, which follow."""
        self._hash.update(payload)
        self.offset += len(payload)

    def sha256(self) -> str:
        """Hex hash of the bytes that the store has."""
        return self._hash.hexdigest()

    def segment(self, file_id: str, number: int, most: int) -> tuple[bytes, dict[str, str]]:
        """The bytes that the store needs next, and the message's fields.

        :param most: bytes of them at most
        :raises FileChangedError: the file is not what it was when it was opened
        """
        payload = self.read(self.offset, most)
        fields = {
            FileStoreProp.SEGMENT_NUMBER: str(number),
            FileStoreProp.ID: file_id,
            # Needed with the last segment only.  So what they refuse is refused with the first.
            FileStoreProp.NAME: self.name,
            FileStoreProp.SIZE: str(self.size),
        }
        if self.offset + len(payload) == self.size:
            self.check_unchanged()
            whole = self._hash.copy()
            whole.update(payload)
            fields[FileStoreProp.RESULT] = FileStoreResultProp.STORE
            fields[FileStoreProp.HASH_SHA256] = whole.hexdigest()
        return payload, fields

    def check_unchanged(self) -> None:
        """Refuse to call what was read the whole file if it was written to meanwhile.

        :raises FileChangedError: it was
        """
        facts = self.facts()
        # Files that a kernel makes up while they are read have no size beforehand.
        longer = os.pread(self._descriptor, 1, self.size)
        if longer or (facts.st_size, facts.st_mtime_ns) != (self.size, self.mtime_ns):
            raise self._changed()

    def close(self) -> None:
        """Let the file go."""
        os.close(self._descriptor)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _real_path(self) -> str:
        try:
            # The kernel knows it.  Looking at each folder on the way takes longer than opening.
            return os.readlink(f"/proc/self/fd/{self._descriptor}")
        except OSError:
            return os.path.realpath(self.path)

    def _changed(self) -> FileChangedError:
        return FileChangedError(
            self.path,
            f"{self.path!r} was changed while it was being read, so nothing was stored. Store it"
            " again once nobody writes to it",
        )


def _irregular(path: str, mode: int) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return OSError(errno.EINVAL, "Not a regular file", path)
