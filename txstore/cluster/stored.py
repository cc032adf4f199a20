"""Stored objects as files: listed, and read piece by piece."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import BinaryIO, cast

from txstore.cluster.objects import Objects
from txstore.deadline import Deadline
from txstore.protocol.names import HIDDEN
from txstore.protocol.stored import StoredFile

#: Keys that one request lists at most.
_MANY = 1000
#: Bytes that are asked for at least: a request takes longer than a MiB on its way.
_LEAST = 1024 * 1024
_OURS = f"{HIDDEN}/"
_BEGIN = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: Comes after all of the store's own objects.
_AFTER_OURS = f"{_OURS}\U0010ffff"


class StoredObjects:
    """The files of one storage.  Thread-safe.

    Only a request for one object tells its hash, so a list has none.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def files(self, after: str | None, limit: int, deadline: Deadline) -> list[StoredFile]:
        """Some stored files in the order of their keys, from after one on; fewer than the limit:
        there are no more."""
        found: list[StoredFile] = []
        at = after
        while len(found) < limit:
            listed = self._objects.listed("", at, min(_MANY, limit), deadline)
            found += [
                StoredFile(one.key, one.size, _ns(one.modified), None)
                for one in listed.entries
                # A console makes empty objects that stand for folders.
                if not one.key.startswith(_OURS) and not one.key.endswith("/")
            ]
            at = listed.after
            if at is None:
                break
            if at.startswith(_OURS):
                at = _AFTER_OURS
        return found[:limit]

    def open(self, path: str, deadline: Deadline) -> OpenedObject:
        """A stored file, for reading.

        :raises FileNotFoundError: nothing is there
        """
        found = self._objects.head(path, deadline)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        raw = _Reading(self._objects, path, found.size, found.etag, deadline.timeout)
        return OpenedObject(
            cast("BinaryIO", io.BufferedReader(raw, _LEAST)),
            found.size,
            _ns(found.modified),
            found.sha256 if found.token is not None else None,
            (path, found.etag, found.modified),
            raw,
        )


@dataclass(frozen=True)
class OpenedObject:
    """A stored object, open for reading."""

    file: BinaryIO
    size: int
    mtime_ns: int
    sha256: str | None
    identity: Hashable
    _raw: _Reading

    @property
    def stored_at(self) -> datetime:
        """When it was stored, as the object store has it."""
        return _BEGIN + timedelta(microseconds=self.mtime_ns // 1000)

    def changed(self) -> bool:
        """Whether the object that was opened can no longer be read."""
        return self._raw.gone


class _Reading(io.RawIOBase):
    """Reads one object, as it was when it was opened.

    :ivar gone: it is another now, or none; then nothing more is read
    """

    def __init__(self, objects: Objects, path: str, size: int, etag: str, timeout: float) -> None:
        self._objects, self._path, self._size, self._etag = objects, path, size, etag
        self._timeout, self._at, self.gone = timeout, 0, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        most = min(len(buffer), self._size - self._at)
        if most <= 0 or self.gone:
            return 0
        data = self._objects.range(self._path, self._at, most, self._etag, Deadline(self._timeout))
        if data is None:
            self.gone = True
            return 0
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _ns(moment: datetime) -> int:
    since = moment - _BEGIN
    return since // timedelta(microseconds=1) * 1000
