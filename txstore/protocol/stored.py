"""What is stored, as every engine tells of it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import BinaryIO, NamedTuple, Protocol


class StoredFile(NamedTuple):
    """A file in the storage.

    :ivar name: path relative to the storage dir, with ``/``
    :ivar size: bytes
    :ivar mtime_ns: time of the last change, ns since 1970
    :ivar sha256: lower-case hex if it is known without reading the file, else ``None``
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str | None


class OpenedFile(Protocol):
    """A stored file, open for reading.  What is read is of the file that had the name then."""

    @property
    def file(self) -> BinaryIO:
        """Its bytes; to be closed by the caller, and used by one thread at a time."""

    @property
    def size(self) -> int:
        """Bytes when it was opened."""

    @property
    def mtime_ns(self) -> int:
        """Time of the last change before it was opened, ns since 1970."""

    @property
    def sha256(self) -> str | None:
        """Lower-case hex if it is known without reading the file."""

    @property
    def identity(self) -> Hashable:
        """Equal for the same file in the same state."""

    def changed(self) -> bool:
        """Whether what was read may be of something else: it was written to since, or its bytes
        can no longer be had."""
