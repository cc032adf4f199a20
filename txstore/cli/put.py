"""Putting one file into a store, from wherever an earlier run of the same command left off.

A file travels in the messages that a client on the fabric would send, which bring the source's mode
and time along.  Its transfer's id is made of the stored name and the source's path, so that a later
run finds what was left behind, and of a random part: no id is ever used for a second file, so no
answer can come from the completion of an earlier one.

A file that is stored already is not sent again, so that a command for several files goes on with
the one at which it was cut off.

What was left is built on only after the source's own first bytes were found to have the SHA-256
that the store holds; the hash in the last message stands behind that.  A source that was changed
starts over; one that changes while it is read ends in an error before the last message: the
transfer stays, and the next run checks it in the same way.

Two runs for one file may meet on one transfer.  Each of them reads the transfer's status again
whenever it is out of step, and goes on from there; one that finds the transfer finished by the
other believes it only after reading the stored file.  One that finds it gone was cancelled.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Generator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from txstore.cli.problems import CommandError
from txstore.constants import FileStoreProp
from txstore.errors import (
    FileChangedError,
    FileMismatchError,
    NameTakenError,
    SequenceError,
    StagingDamagedError,
)
from txstore.protocol.request import LocalMessage
from txstore.source import Source

if TYPE_CHECKING:
    from txstore import FileStoreManager, TransferStatus
    from txstore.protocol.stored import OpenedFile

# What an id may not hold, and what a shell would not take as it is.
_NOT_IN_IDS = re.compile(r"[^\w-]+")
_READABLE = 60

# Rounds without any new byte acknowledged, by whomever, before the transfer is given up.
_MAX_STALLED = 10


class CancelledError(CommandError):
    """Somebody dropped the transfer while this run was at it."""

    def __init__(self, file_id: str) -> None:
        super().__init__(
            f"cancelled. Its transfer {file_id} was dropped on the way. To store the file after"
            " all, run the same command again."
        )


@dataclass(frozen=True)
class Checked:
    """A file was read up to `offset` of the first `total` bytes, to compare it with another."""

    offset: int
    total: int


@dataclass(frozen=True)
class Resumed:
    """An earlier run's first `offset` bytes are in the store and need not be sent again."""

    offset: int


@dataclass(frozen=True)
class StartedOver:
    """What an earlier run left was dropped, for a `reason`."""

    reason: str


@dataclass(frozen=True)
class Acked:
    """The store has the first `offset` bytes; `sent` of them came from this message."""

    offset: int
    sent: int


@dataclass(frozen=True)
class Stored:
    """The file is in the storage, always the last event; `sent` bytes came from its last message.

    With `by_another`, another run of the same command brought it there: it was read and is right.
    With `already`, it was there as it is now published before anything of it was sent.
    """

    sent: int
    by_another: bool = False
    already: bool = False


@dataclass(frozen=True)
class NameTaken:
    """A file has the name, and is not replaced: always the last event.  Nothing is kept."""


Event = Checked | Resumed | StartedOver | Acked | Stored | NameTaken


def transfer_prefix(name: str, path: str) -> str:
    """What the ids of all transfers of the file at `path` to the stored name `name` begin with."""
    digest = hashlib.sha256(os.fsencode(name) + b"\0" + os.fsencode(path)).hexdigest()
    # For whoever reads a list of ids: the digest alone tells the transfers apart.
    readable = _NOT_IN_IDS.sub("-", os.path.basename(name))[:_READABLE].strip("-")
    return f"put-{readable}-{digest[:16]}-"


class Put:
    """One file on its way into a store.

    :param preserve: whether what is stored has the source's mode and time
    :param replace: whether a file that has the name is replaced; the store is to refuse it, too
    """

    def __init__(
        self,
        store: FileStoreManager,
        source: Source,
        segment_size: int,
        *,
        preserve: bool = True,
        replace: bool = True,
    ) -> None:
        self._store = store
        self._source = source
        self._segment_size = segment_size
        self._preserve = preserve
        self._replace = replace
        self._prefix = transfer_prefix(source.name, source.path)
        self._target = os.path.join(store.storage_dir, source.name)
        self._in_folders = "://" not in store.storage_dir
        self._segments = 0
        #: the transfer that is worked on; ``None`` until one was found or begun
        self.file_id: str | None = None
        self._dropped_by_others: str | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._source.size

    def sha256(self) -> str:
        """Hex hash of what was found to be in the store; at the end, of the file."""
        return self._source.sha256()

    def run(self) -> Generator[Event, None, None]:
        """Do all of it, a step an event; whoever stops between two events leaves it resumable.

        :raises CancelledError: somebody dropped the transfer
        """
        # The store tells so only at the end.
        if not self._replace and self._is_there():
            stored_already = yield from self._stored_already()
            yield Stored(0, already=True) if stored_already else NameTaken()
            return
        furthest, stalled = -1, 0
        while stalled < _MAX_STALLED:
            stalled += 1
            try:
                if (stored := (yield from self._take_up())) is not None:
                    yield stored
                    return
                if self._source.offset > furthest:
                    furthest, stalled = self._source.offset, 0
                yield from self._send_rest()
                return
            except SequenceError:
                continue
            except NameTakenError:
                if self.file_id is not None:
                    self._store.cancel(self.file_id)
                yield NameTaken()
                return
            except StagingDamagedError as error:
                yield from self._drop(error.file_id, "the store has lost bytes of it")
            except FileMismatchError:
                self.file_id = None
                yield StartedOver("what the store received was not this file")
        raise CommandError("others keep changing its transfer. Run the same command again later.")

    def _take_up(self) -> Generator[Event, None, Stored | None]:
        """Find a transfer that is the beginning of the source, or begin one; ``Stored`` where
        nothing is left to send."""
        while (found := self._found()) is not None:
            if found.state == "stored":
                if (yield from self._is_in_storage()):
                    return Stored(0, by_another=True)
                self.file_id = None
                continue
            reason = yield from self._mismatch(found)
            if reason is not None:
                yield from self._drop(found.file_id, reason)
                continue
            self._segments = found.segments_received
            if found.file_id != self.file_id:
                self.file_id = found.file_id
                yield Resumed(found.bytes_received)
            return None
        if (yield from self._stored_already()):
            return Stored(0, already=True)
        if self._dropped_by_others is not None:
            raise CancelledError(self._dropped_by_others)
        self.file_id = self._prefix + os.urandom(4).hex()
        self._segments = 0
        self._source.rewind()
        return None

    def _found(self) -> TransferStatus | None:
        """The transfer that this run is at, else the one that an earlier run brought furthest.

        It is settled: what a power loss took of it is not in it any more.  So one that is gone
        later was dropped by somebody.
        """
        if self.file_id is not None and self._segments > 0:
            if (found := self._store.status(self.file_id)) is None:
                raise CancelledError(self.file_id)
            return found
        ours = self._store.transfers(self._prefix)
        ours.sort(key=lambda transfer: transfer.bytes_received, reverse=True)
        settled = (self._store.status(transfer.file_id) for transfer in ours)
        return next(filter(None, settled), None)

    def _drop(self, file_id: str, reason: str) -> Generator[Event, None, None]:
        """Drop a transfer that cannot be gone on with."""
        self.file_id = None
        if self._store.cancel(file_id).segments_received:
            yield StartedOver(reason)
        else:
            # Either by another run, which found the same and has begun anew, or by a person who
            # does not want the file to be stored.
            self._dropped_by_others = file_id

    def _mismatch(self, found: TransferStatus) -> Generator[Event, None, str | None]:
        """Why `found` is not the beginning of the source, or ``None`` where it is."""
        if found.bytes_received > self._source.size:
            return "the source is shorter than what the store had received"
        for event in self._move_to(found.bytes_received):
            yield event
            # It may take minutes, in which a person may have cancelled it.
            if event.offset < event.total and self._store.status(found.file_id) is None:
                return "it was dropped"
        # Not known where a worker without OpenSSL wrote last: then the last message's hash tells.
        if found.sha256 not in (None, self._source.sha256()):
            return "the source has changed since the last run"
        return None

    def _send_rest(self) -> Generator[Event, None, None]:
        assert self.file_id is not None
        source, final = self._source, False
        while not final:
            payload, fields = source.segment(self.file_id, self._segments + 1, self._segment_size)
            self._store.store_segment(
                LocalMessage(payload, fields, source.facts())
                if self._preserve
                else SimpleNamespace(payload=payload, other_fields=fields)
            )
            # Only now: a refused message leaves the source where the store is, or before it.
            source.acknowledged(payload)
            self._segments += 1
            final = FileStoreProp.RESULT in fields
            yield Stored(len(payload)) if final else Acked(source.offset, len(payload))

    def _stored_already(self) -> Generator[Event, None, bool]:
        """Whether what the store published last under the name is, as far as it knows, this file
        and still there.  The stored file is not read."""
        source = self._source
        sha256 = self._known_of_file() if self._in_folders else self._known_of_object()
        if sha256 is None:
            return False
        yield from self._move_to(source.size)
        source.check_unchanged()
        return sha256 == source.sha256()

    def _is_there(self) -> bool:
        """Whether anything has the name."""
        if self._in_folders:
            return os.path.lexists(self._target)
        return self._object() is not None

    def _known_of_file(self) -> str | None:
        """The hash of a stored file that may be this one."""
        try:
            found = os.lstat(self._target)
        except OSError:
            return None
        if found.st_size != self._source.size:
            return None
        if self._preserve and not _looks_like(self._source.facts(), found):
            return None
        return self._store.stored_sha256(self._source.name, found)

    def _known_of_object(self) -> str | None:
        """The same, where files are objects: these have no mode, and a time of their own."""
        found = self._object()
        return found.sha256 if found is not None and found.size == self._source.size else None

    def _object(self) -> OpenedFile | None:
        try:
            opened = self._store.open_stored(self._source.name)
        except FileNotFoundError:
            return None
        opened.file.close()
        return opened

    def _is_in_storage(self) -> Generator[Event, None, bool]:
        """Whether the file in the storage is, byte for byte, this one."""
        if not self._in_folders:
            return (yield from self._stored_already())
        source = self._source
        try:
            with Source(self._target, source.name) as stored:
                for offset in stored.move_to(stored.size):
                    yield Checked(offset, stored.size)
        except (OSError, FileChangedError):
            # Moved, removed or replaced since: then this run stores it again.
            return False
        yield from self._move_to(source.size)
        source.check_unchanged()
        return stored.sha256() == source.sha256()

    def _move_to(self, offset: int) -> Generator[Checked, None, None]:
        for reached in self._source.move_to(offset):
            yield Checked(reached, offset)


def _looks_like(facts: os.stat_result, stored: os.stat_result) -> bool:
    """Whether a stored file has what is kept of a source beside its bytes."""
    return (stat.S_IMODE(stored.st_mode), stored.st_mtime_ns) == (
        stat.S_IMODE(facts.st_mode) & 0o777,
        facts.st_mtime_ns,
    )
