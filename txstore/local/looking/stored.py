"""Whether what was stored is there as it was stored: what the journal says against the files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from enum import Enum, auto

from txstore.checks import Finding, Verified, finding
from txstore.errors import LockTimeoutError, NameRefusedError
from txstore.local.files.content import has_content
from txstore.local.files.places import place_of
from txstore.local.journal.rows import Stored
from txstore.local.looking.look import Look
from txstore.local.status import entry_of
from txstore.protocol.catalogue import Reached


class _Seen(Enum):
    """What stands at the place of a stored file."""

    AS_STORED = auto()  #: the file, as far as its inode, size and time tell
    DOUBTFUL = auto()  #: the same, but a power loss may have taken bytes of it
    UNKNOWN = auto()  #: one of which only reading tells whether it is the same
    OTHER = auto()
    NOTHING = auto()
    LATER = auto()  #: what was stored there later
    PERHAPS = auto()  #: perhaps that, whose record a crash took, or perhaps another program's
    WHOLE = auto()  #: the file, and it was read


class StoredChecks:
    """Looks at what was stored last at each place.  For one thread.

    :param deep: read all files, not only those of which nothing else tells
    :param reached: hears how many bytes were read, piece by piece
    """

    def __init__(self, look: Look, *, deep: bool, reached: Reached = lambda _: None) -> None:
        self._look, self._deep, self._reached = look, deep, reached
        self._found, self._disk, self._places = look.found, look.disk, look.places
        self._records, self._locks = look.records, look.locks

    def findings(self) -> Iterator[Finding]:
        """What is missing, or is not what was stored."""
        for done in self._records.stored(b"", self._look.timeout):
            found = self._finding(done, self._look_at(done), _KINDS)
            if found is not None:
                yield found

    def verify(self, after: bytes) -> Iterator[Verified]:
        """All files that are known, in the order of their places, from after one on."""
        for done in self._records.stored(after, self._look.timeout):
            yield self.verified(done)

    def verified(self, done: Stored) -> Verified:
        """One file, or what was stored in its place meanwhile."""
        while (seen := self._look_at(done)) is _Seen.LATER:
            latest = self._records.catalogue.at(done.place, self._look.deadline())
            if latest is None:
                break  # the file went, and its row just now
            done = latest
        entry = entry_of(done)
        return Verified(entry.name, entry, self._finding(done, seen, _TOLD))

    def _look_at(self, done: Stored) -> _Seen | Finding:
        name = os.fsdecode(done.path)
        try:
            return self._examine(done)
        except PermissionError as error:
            return finding("unreadable", path=name, problem=error.strerror)
        except LockTimeoutError as error:
            return finding("busy", subject=name, seconds=error.timeout)

    @staticmethod
    def _finding(done: Stored, seen: _Seen | Finding, kinds: Mapping[_Seen, str]) -> Finding | None:
        if isinstance(seen, Finding):
            return seen
        if seen not in kinds:
            return None
        return finding(
            kinds[seen],
            name=os.fsdecode(done.path),
            size=done.size,
            sha256=done.sha256.hex(),
            completed_at=done.completed_at,
        )

    def _examine(self, done: Stored) -> _Seen:
        """What is there, once it is sure."""
        seen = self._see(done)
        if seen is _Seen.AS_STORED and not self._deep:
            return _Seen.WHOLE
        while True:
            if seen in _TO_READ and self._is_content(done):
                return _Seen.WHOLE
            # Workers replace a file before they record it.
            again = self._locks.with_name(
                done.place, self._look.deadline(), lambda: self._see_last(done)
            )
            if again in (seen, _Seen.LATER, _Seen.PERHAPS):
                return again
            seen = again

    def _see_last(self, done: Stored) -> _Seen:
        """What is there while nobody can publish at the place."""
        deadline = self._look.deadline()
        latest = self._records.catalogue.at(done.place, deadline)
        if latest is None or latest._replace(durable=done.durable) != done:
            return _Seen.LATER
        seen = self._see(done)
        if seen not in (_Seen.OTHER, _Seen.UNKNOWN):
            return seen
        # A power loss may take the record of a file in one segment, and leave the file.
        if not self._found.is_this_boot(done.boot):
            return _Seen.PERHAPS
        # A worker may have died after it renamed one: the next completes it.
        intents = self._records.by_place(done.place, deadline)
        at_place = any(self._is_at(row.inode, done.place) for row in intents)
        return _Seen.PERHAPS if at_place else seen

    def _see(self, done: Stored) -> _Seen:
        place = place_of(done.place)
        with ExitStack() as opened:
            try:
                parents = opened.enter_context(self._places.look(place))
                found = self._disk.stat(place[-1], dir_fd=parents.folder)
            except (FileNotFoundError, NotADirectoryError, NameRefusedError):
                return _Seen.NOTHING
        if found.st_size != done.size:
            return _Seen.OTHER
        same = (found.st_ino, found.st_mtime_ns) == (done.inode, done.mtime_ns)
        if not same:
            return _Seen.UNKNOWN
        kept = done.durable or self._found.is_this_boot(done.boot)
        return _Seen.AS_STORED if kept else _Seen.DOUBTFUL

    def _is_at(self, inode: int, recorded: bytes) -> bool:
        place = place_of(recorded)
        try:
            with self._places.look(place) as parents:
                return self._disk.stat(place[-1], dir_fd=parents.folder).st_ino == inode
        except (FileNotFoundError, NotADirectoryError, NameRefusedError):
            return False

    def _is_content(self, done: Stored) -> bool:
        place = place_of(done.place)
        try:
            with self._places.look(place) as parents:
                file = self._disk, place[-1], parents.folder
                return has_content(*file, done.sha256, self._reached)
        except (FileNotFoundError, NotADirectoryError, NameRefusedError):
            return False


_TO_READ = (_Seen.AS_STORED, _Seen.DOUBTFUL, _Seen.UNKNOWN)
_KINDS = {
    _Seen.AS_STORED: "stored-damaged",
    _Seen.DOUBTFUL: "stored-damaged",
    _Seen.UNKNOWN: "stored-changed",
    _Seen.OTHER: "stored-changed",
    _Seen.NOTHING: "stored-missing",
}
#: For who asks of one file: he is told, too, what may be well.
_TOLD = {**_KINDS, _Seen.PERHAPS: "stored-changed"}
