"""The local file that is sent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import stat
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

from txstore import FileStoreProp, FileStoreResultProp
from txstore.errors import FileChangedError

#: Ids tried for one file: each that another transfer holds costs one.
MOST_IDS = 20

_NAMESPACE = uuid.UUID("7ac5f4f0-3f5c-5f0e-9b0a-0d1f6ac0a5d4")
_BLOCK = 1024 * 1024


class Source:
    """The file that is sent: its bytes, and the hash of those that the store has.

    :param path: the file
    :param name: what it will be stored as
    :ivar offset: bytes that the store has
    :raises OSError: it cannot be read, or is no regular file
    """

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self._path = os.path.realpath(path)
        self.name = name
        self._file = _open_regular(self._path)
        found = os.fstat(self._file.fileno())
        self.size = found.st_size
        self._mtime_ns = found.st_mtime_ns
        self.offset = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def ids(self) -> Iterator[str]:
        """The ids this file may be sent under, the same ones each time, best first.

        They depend on the machine, so that senders of different files with one name do not meet,
        and on size and time, so that a changed file does not go on where the old one stopped.
        """
        facts = [self.name, platform.node(), self._path, self.size, self._mtime_ns]
        for attempt in range(MOST_IDS):
            yield str(uuid.uuid5(_NAMESPACE, json.dumps([*facts, attempt])))
        yield str(uuid.uuid4())

    def rewind(self) -> None:
        """The store has nothing."""
        self.offset = 0
        self._digest = hashlib.sha256()

    def skip(self, size: int, sha256: str | None) -> bool:
        """The store has ``size`` bytes; whether they are the first of this file.

        :param sha256: hex hash of the bytes that the store has; ``None`` if it does not know it
        """
        if size > self.size:
            return False
        digest = hashlib.sha256()
        self._file.seek(0)
        left = size
        while left and (block := self._file.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
        if left or (sha256 is not None and digest.hexdigest() != sha256.lower()):
            return False
        self._digest = digest
        self.offset = size
        return True

    def segment(self, file_id: str, number: int, size: int) -> tuple[bytes, dict[str, str]]:
        """The next bytes and the message's fields.

        :raises FileChangedError: the file is not what it was at the start
        """
        self._file.seek(self.offset)
        data = self._file.read(min(size, self.size - self.offset))
        fields = {FileStoreProp.SEGMENT_NUMBER: str(number), FileStoreProp.ID: file_id}
        # So that a service refuses a name or a size before anything of the file is there.
        fields[FileStoreProp.NAME] = self.name
        fields[FileStoreProp.SIZE] = str(self.size)
        last = self.offset + len(data) == self.size
        if last or not data:
            self._check_unchanged()
            digest = self._digest.copy()
            digest.update(data)
            fields[FileStoreProp.RESULT] = FileStoreResultProp.STORE
            fields[FileStoreProp.HASH_SHA256] = digest.hexdigest()
        return data, fields

    def acknowledged(self, data: bytes) -> None:
        """The store has these bytes too."""
        self._digest.update(data)
        self.offset += len(data)

    def sha256(self) -> str:
        """Hex hash of the bytes that the store has."""
        return self._digest.hexdigest()

    def _check_unchanged(self) -> None:
        found = os.fstat(self._file.fileno())
        # Files that a kernel makes up while they are read have no size beforehand.
        longer = self._file.read(1)
        if longer or (found.st_size, found.st_mtime_ns) != (self.size, self._mtime_ns):
            raise FileChangedError(
                self._path,
                f"{self._path!r} was changed while it was sent and is not stored; send it again",
            )


def size_of_regular(path: str) -> int:
    """Bytes of a file that can be sent.

    :raises OSError: it cannot be read, or is no regular file
    """
    with _open_regular(path) as file:
        return os.fstat(file.fileno()).st_size


def _open_regular(path: str) -> BinaryIO:
    # Without O_NONBLOCK a named pipe would wait here for somebody who writes to it.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise
