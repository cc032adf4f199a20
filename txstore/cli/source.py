"""The file that is put: opened once, held to its size and time, read at offsets."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from types import TracebackType

from txstore.cli.problems import CommandError

_SLICE = 8 * 2**20


class SourceError(CommandError):
    """The file to put cannot be read as it should be."""


class Source:
    """A regular file, pinned to the size and modification time that it had when it was opened."""

    def __init__(self, path: str) -> None:
        #: without symbolic links, so that every way to write the path means the same file
        self.path = os.path.realpath(path)
        try:
            # Without O_NONBLOCK a named pipe would wait here for somebody who writes to it.
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"cannot read {path!r}: {error.strerror}.") from error
        facts = os.fstat(self._descriptor)
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
            raise SourceError(f"{path!r} is {kind}; only regular files can be put.")
        self.size = facts.st_size
        self._modified = facts.st_mtime_ns

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at `offset`: `length` of them, fewer only where the file ends."""
        length = min(length, self.size - offset)
        pieces = []
        while length > 0:
            try:
                piece = os.pread(self._descriptor, length, offset)
            except OSError as error:
                raise SourceError(f"cannot read {self.path!r}: {error.strerror}.") from error
            if not piece:
                raise self._changed()
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def facts(self) -> os.stat_result:
        """What is told of the file now, its mode and time among it."""
        return os.fstat(self._descriptor)

    def looks_like(self, stored: os.stat_result) -> bool:
        """Whether a stored file has what is kept of this one beside its bytes."""
        facts = self.facts()
        return (stat.S_IMODE(stored.st_mode), stored.st_mtime_ns) == (
            stat.S_IMODE(facts.st_mode) & 0o777,
            facts.st_mtime_ns,
        )

    def check_unchanged(self) -> None:
        """Refuse to call what was read a whole file if it was written to meanwhile."""
        facts = os.fstat(self._descriptor)
        if (facts.st_size, facts.st_mtime_ns) != (self.size, self._modified):
            raise self._changed()

    def close(self) -> None:
        """Let the file go."""
        os.close(self._descriptor)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _changed(self) -> SourceError:
        return SourceError(
            f"{self.path!r} was changed while it was being read, so nothing was stored."
            " Run the same command again once nobody writes to it."
        )


class PrefixHash:
    """SHA-256 of a source's first bytes, up to an offset that moves."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        #: number of bytes hashed
        self.offset = 0

    def move_to(self, offset: int) -> Iterator[int]:
        """Hash up to `offset`, yielding where it is after each slice.

        Going on reads only what is new; going back reads from the start again.
        """
        if offset < self.offset:
            self._hash = hashlib.sha256()
            self.offset = 0
        while self.offset < offset:
            self.take(self._source.read(self.offset, min(_SLICE, offset - self.offset)))
            yield self.offset

    def take(self, payload: bytes) -> None:
        """Go on over `payload`, the bytes that follow."""
        self._hash.update(payload)
        self.offset += len(payload)

    def followed_by(self, payload: bytes) -> str:
        """Hex digest of the prefix and `payload` together; the prefix stays where it is."""
        ahead = self._hash.copy()
        ahead.update(payload)
        return ahead.hexdigest()
