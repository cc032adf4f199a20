"""A store over two servers that is being moved: what it gives, and what it takes.

``docs/cluster-design.md`` lists the states after a crash.  Each transaction that takes something
looks whether the fence still stands.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from txstore import digest
from txstore.cluster import leftovers, records
from txstore.cluster.fences import read_fence, set_fence, stands
from txstore.cluster.journal import Journal, Transaction
from txstore.cluster.objects import STAGING, Objects
from txstore.cluster.parts import Parts
from txstore.cluster.publish import Publisher
from txstore.cluster.records import Completion, Part, Transfer
from txstore.cluster.retry import ChangedError, retrying
from txstore.cluster.schema import completion, consumer, event, store, transfer
from txstore.cluster.servers import Servers
from txstore.deadline import Deadline
from txstore.engine import Engine
from txstore.errors import (
    MigrationError,
    ObjectStoreError,
    SourceDamagedError,
    StagingDamagedError,
)
from txstore.porting import LastMessage, OpenTransfer, checked, opened_meanwhile
from txstore.protocol.event import Consumer, Event
from txstore.protocol.moved import Fence
from txstore.protocol.stored import OpenedFile, StoredFile

#: An upload cannot have more parts than 10,000.
_MOST_PARTS = 5000

_p = sa.bindparam
_MESSAGES = (
    sa.select(*(completion.c[name] for name in Completion._fields))
    .where(completion.c.id > _p("after"))
    .order_by(completion.c.id)
    .limit(_p("most"))
)
_COUNT = sa.select(sa.func.count()).select_from(completion)
_LAST_EVENT = sa.select(store.c.events)
_TAKE_TRANSFER = insert(transfer).on_conflict_do_nothing().returning(transfer.c.id)
_TAKE_CONSUMER = insert(consumer).on_conflict_do_nothing()


class ClusterPort:
    """See ``Port``."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        objects: Objects,
        parts: Parts,
        publisher: Publisher,
        servers: Servers,
        timeout: float,
    ) -> None:
        self._engine, self._journal, self._objects, self._parts = engine, journal, objects, parts
        self._publisher, self._servers, self._timeout = publisher, servers, timeout
        self.storage_dir, self.working_dir = engine.storage_dir, engine.working_dir
        self.store_id = journal.salt.decode()

    def _deadline(self) -> Deadline:
        return Deadline(self._timeout)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A lock on a connection of its own: so it ends with its process."""
        connection = self._journal.apart(self._deadline())
        try:
            with (
                self._journal.lent(connection, self._deadline()),
                self._journal.within(connection, self._deadline()) as at,
            ):
                lock = sa.func.pg_try_advisory_lock(self._journal.key("moving", ""))
                if not at.run(sa.select(lock)).scalar():
                    raise MigrationError(
                        f"Another `txstore migrate` is at work on {self.working_dir}. Wait for it."
                    )
            yield
        finally:
            self._journal.drop(connection)

    # --- the fence ---------------------------------------------------------------------------

    def fence(self) -> Fence | None:
        """What keeps workers off."""
        return self._journal.ask(read_fence, self._deadline())

    def raise_fence(self, fence: Fence) -> None:
        """Keep workers off, by triggers that refuse whatever they write."""
        self._journal.ask(lambda at: set_fence(at, fence), self._deadline())

    def lift_fence(self) -> None:
        """Let workers in."""
        self._journal.ask(lambda at: set_fence(at, None), self._deadline())

    # --- what is here ------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Whether nothing was ever stored here, and nothing begun."""
        began = self.transfers() or self.count_messages() or self.last_event()
        return not began and not self.stored(None, 1)

    def settle(self) -> list[str]:
        """Settle what dead workers left."""
        while left := self._journal.ask(lambda at: leftovers.intents(at, 100), self._deadline()):
            for row in left:
                self._retrying(lambda row=row: self._publisher.settle(row, self._deadline()))
        return []

    def strange(self) -> Iterator[tuple[str, str]]:
        """Nothing: there are but objects."""
        return iter(())

    def stored(self, after: str | None, limit: int) -> list[StoredFile]:
        """As the engine's own."""
        return self._engine.stored(after, limit, self._deadline())

    def open_stored(self, name: str) -> OpenedFile:
        """As the engine's own."""
        return self._engine.open_stored(name, self._deadline())

    def transfers(self) -> list[OpenTransfer]:
        """The unfinished transfers."""
        rows = self._journal.ask(lambda at: records.transfers(at, ""), self._deadline())
        return [
            OpenTransfer(
                *(row.file_id, row.segments, row.offset, row.last_size),
                *(row.created_at.timestamp(), row.updated_at.timestamp()),
            )
            for row in rows
        ]

    def read(self, transfer: OpenTransfer) -> Iterator[bytes]:
        """The bytes of one."""

        def look(at: Transaction) -> tuple[Transfer | None, list[Part], bytes]:
            row = records.find(at, transfer.file_id)
            if row is None:
                return None, [], b""
            return row, records.parts(at, row.id), records.read_tail(at, row)

        row, parts, tail = self._journal.ask(look, self._deadline())
        if row is None:
            raise StagingDamagedError(self.working_dir, transfer.file_id, "is gone")
        hasher = digest.new()
        for one in parts:
            try:
                piece = self._objects.get(one.key, self._deadline())
            except ObjectStoreError:
                if self._objects.head(one.key, self._deadline()) is not None:
                    raise
                raise StagingDamagedError(one.key, row.file_id, "is gone") from None
            if hashlib.sha256(piece).digest() != one.sha256:
                raise StagingDamagedError(one.key, row.file_id, "is not what was received")
            hasher.update(piece)
            yield piece
        hasher.update(tail)
        yield tail
        recorded = digest.digest_of(row.state, row.offset)
        if hasher.total != row.offset or recorded not in (None, hasher.digest()):
            raise StagingDamagedError(self.working_dir, row.file_id, "is not what was received")

    def messages(self, after: int, limit: int) -> list[tuple[int, LastMessage]]:
        """Some last messages."""

        def look(at: Transaction) -> list[tuple[Completion, bool]]:
            rows = at.run(_MESSAGES, {"after": after, "most": limit}).all()
            found = [Completion._make(row) for row in rows]
            return [(one, records.latest_at(at, one.path) == one.id) for one in found]

        return [
            (
                one.id,
                LastMessage(
                    *(one.file_id, one.segments, one.path, one.size, one.sha256, one.last),
                    *(one.created_at.timestamp(), one.completed_at.timestamp()),
                    latest and self._publisher.is_as_published(one, self._deadline()),
                ),
            )
            for one, latest in self._journal.ask(look, self._deadline())
        ]

    def count_messages(self) -> int:
        """How many there are."""
        return self._journal.ask(lambda at: int(at.run(_COUNT).scalar_one()), self._deadline())

    def events(self, after: int, limit: int) -> list[Event]:
        """Some events after one."""
        return self._engine.events.after(after, limit, self._deadline())

    def last_event(self) -> int:
        """Number of the newest event; all get theirs before."""
        self.events(2**62, 1)
        return self._journal.ask(lambda at: int(at.run(_LAST_EVENT).scalar_one()), self._deadline())

    def consumers(self) -> list[Consumer]:
        """The consumers of events."""
        return self._engine.events.consumers(self._deadline())

    # --- what comes --------------------------------------------------------------------------

    def has(self, name: str, file: OpenedFile, tag: str) -> bool:
        """Whether a file was taken before: its object has the tag."""
        found = self._objects.head(name, self._deadline())
        return found is not None and (found.token, found.size) == (tag, file.size)

    def take_file(self, name: str, file: OpenedFile, tag: str) -> None:
        """Store a file: by one request, or by an upload that is completed once all was seen to be
        right."""
        size = self._part_size(file.size)
        file.file.seek(0)
        if file.size <= size:
            data = b"".join(checked(name, file))
            sha256 = hashlib.sha256(data).digest()
            self._objects.put(name, data, self._deadline(), token=tag, sha256=sha256)
            return
        hashed = hashlib.sha256()
        for piece in checked(name, file):
            hashed.update(piece)
        # Its hash is told when an upload begins.
        sha256, again = hashed.digest(), hashlib.sha256()
        etags: list[str] = []
        upload = self._objects.begin(name, tag, sha256, self._deadline())
        try:
            file.file.seek(0)
            for data in _blocks(checked(name, file), size):
                again.update(data)
                number = len(etags) + 1
                etags.append(self._objects.add(name, upload, number, data, self._deadline()))
            if again.digest() != sha256:
                raise SourceDamagedError(name, f"The file {name!r} was changed while it was read.")
        except BaseException:
            with suppress(OSError):  # else aborted after a day, like those that a crash leaves
                self._objects.abort(name, upload, self._deadline())
            raise
        if not self._objects.complete(name, upload, etags, tag, self._deadline()):
            raise opened_meanwhile(self.working_dir)

    def _part_size(self, size: int) -> int:
        return max(self._parts.size(None), -(-size // _MOST_PARTS))

    def take_transfer(self, transfer: OpenTransfer, pieces: Iterable[bytes]) -> None:
        """Begin a transfer: its parts first, which are nobody's until one transaction says so."""
        size, cut = self._part_size(transfer.size), transfer.size - transfer.last_size
        hasher = digest.new()
        before = hasher.save() if cut == 0 else None
        parts: list[Part] = []
        tail = b""
        for data in _blocks(pieces, size):
            head = data[: max(cut - hasher.total, 0)]
            hasher.update(head)
            if hasher.total == cut:
                before = hasher.save()
            hasher.update(data[len(head) :])
            if len(data) < size:
                tail = data
            else:
                parts.append(self._part(len(parts) + 1, data))
        state = hasher.save()

        def record(at: Transaction) -> None:
            if not stands(at):
                raise opened_meanwhile(self.working_dir)
            values = {
                "file_id": transfer.file_id,
                "change": 0,
                "segments": transfer.segments,
                "offset": hasher.total,
                "last_size": transfer.last_size,
                "state": state,
                "before": before,
                "parts": len(parts),
                "staged": sum(one.size for one in parts),
                "created_at": _time(transfer.created_at),
                "updated_at": _time(transfer.updated_at),
            }
            key = at.run(_TAKE_TRANSFER, values).scalar()
            if key is None:
                return  # by an attempt whose answer was lost
            for one in parts:
                if not records.record_part(at, key, one):
                    raise ChangedError
            if tail:
                records.add_tail(at, key, transfer.segments, tail)

        self._journal.ask(record, self._deadline())

    def _part(self, number: int, data: bytes) -> Part:
        key = f"{STAGING}{uuid.uuid4().hex}"
        self._journal.ask(lambda at: records.register(at, key), self._deadline())
        etag = self._objects.put(key, data, self._deadline())
        return Part(key, number, len(data), etag, hashlib.sha256(data).digest())

    def take_messages(self, before: int, messages: list[LastMessage]) -> None:
        """Record last messages, in one transaction."""
        tokens = [self._token(one) for one in messages]

        def record(at: Transaction) -> None:
            if not stands(at):
                raise opened_meanwhile(self.working_dir)
            if int(at.run(_COUNT).scalar_one()) != before:
                return  # by an attempt whose answer was lost
            for one, token in zip(messages, tokens, strict=True):
                values = {
                    "file_id": one.file_id,
                    "segments": one.segments,
                    "path": one.name,
                    "size": one.size,
                    "sha256": one.sha256,
                    "last": one.last,
                    "token": token,
                    "created_at": _time(one.created_at),
                    "completed_at": _time(one.completed_at),
                }
                at.run(sa.insert(completion), values)

        self._journal.ask(record, self._deadline())

    def _token(self, one: LastMessage) -> str:
        found = self._objects.head(one.name, self._deadline()) if one.stands else None
        return found.token if found is not None and found.token else uuid.uuid4().hex

    def take_events(self, after: int, events: list[Event]) -> None:
        """Record events, in one transaction."""

        def record(at: Transaction) -> None:
            if not stands(at):
                raise opened_meanwhile(self.working_dir)
            if int(at.run(_LAST_EVENT).scalar_one()) != after:
                return  # by an attempt whose answer was lost
            for one in events:
                at.run(sa.insert(event), _row_of(one))
            at.run(sa.update(store).values(events=events[-1].sequence))

        self._journal.ask(record, self._deadline())

    def take_consumers(self, consumers: list[Consumer], last: int) -> None:
        """Register consumers."""

        def record(at: Transaction) -> None:
            if not stands(at):
                raise opened_meanwhile(self.working_dir)
            at.run(sa.update(store).values(events=sa.func.greatest(store.c.events, last)))
            for one in consumers:
                values = {"name": one.name, "cursor": one.cursor}
                at.run(_TAKE_CONSUMER, {**values, "registered_at": one.registered_at})

        self._journal.ask(record, self._deadline())

    def _retrying(self, work: Any) -> None:
        with suppress(ChangedError):  # somebody settled it; looked at again by whoever calls
            retrying(work, self._deadline(), self._servers)


def _blocks(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of a size; the last one may be smaller."""
    block = bytearray()
    for piece in pieces:
        block += piece
        while len(block) >= size:
            yield bytes(block[:size])
            del block[:size]
    if block:
        yield bytes(block)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _row_of(one: Event) -> dict[str, Any]:
    return {
        "sequence": one.sequence,
        "kind": one.kind,
        "file_id": one.file_id,
        "segments": one.segments,
        "size": one.size,
        "path": one.name,
        "sha256": None if one.sha256 is None else bytes.fromhex(one.sha256),
        "sender": one.sender,
        "created_at": one.created_at,
        "recorded_at": one.recorded_at,
    }
