"""A store in two folders that is being moved: what it gives, and what it takes.

``docs/design.md`` lists the states after a crash.  What is taken is durable before it is recorded,
and recorded only behind a fence: each transaction looks whether that still stands.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from txstore import digest
from txstore.deadline import Deadline
from txstore.engine import Engine
from txstore.errors import StagingDamagedError
from txstore.local.clock import Call
from txstore.local.files.flushed import FlushedFolders
from txstore.local.files.home import Home
from txstore.local.files.newfile import give, new_file_in
from txstore.local.files.places import Parents, Place, Places, place_bytes
from txstore.local.files.staged import StagedFile
from txstore.local.files.staging import PRIVATE, Staging
from txstore.local.files.stored import strange_in
from txstore.local.intents import Intents
from txstore.local.journal.catalogue_records import CatalogueRecords
from txstore.local.journal.event_records import EventRecords
from txstore.local.journal.journal import Write
from txstore.local.journal.records import Records
from txstore.local.journal.revision import REVISION
from txstore.local.journal.rows import Completion, Stored, Transfer
from txstore.local.journal.rows import Event as EventRow
from txstore.local.journal.schema import catalogue, completion, consumer, event, transfer
from txstore.local.journal.sqlite import Statement
from txstore.local.locks import Locks
from txstore.local.publish import Publisher
from txstore.local.published import Published
from txstore.local.transfers import Transfers
from txstore.porting import PIECE, LastMessage, OpenTransfer, checked, opened_meanwhile
from txstore.protocol.event import Consumer, Event
from txstore.protocol.moved import Fence
from txstore.protocol.request import FileClaim
from txstore.protocol.stored import OpenedFile, StoredFile

#: No file has it.
_NO_INODE = -1

TakeUp = Callable[[str, "FileClaim | None", Call], "tuple[Transfer, StagedFile] | None"]

# ``main``: what everybody sees.  The connection of whoever moves a store has a version of its own.
_FENCE = Statement(sa.text("SELECT version_num FROM main.alembic_version"))
_SET_FENCE = Statement(sa.text("UPDATE main.alembic_version SET version_num = :version"))
_STANDS = Write(
    Statement(
        sa.text(
            "UPDATE main.alembic_version SET version_num = version_num"
            " WHERE version_num LIKE 'filled from %'"
        )
    ),
    {},
    guarded=True,
)


def _insert(table: sa.Table, names: tuple[str, ...]) -> Statement:
    return Statement(sa.insert(table).values({name: sa.bindparam(name) for name in names}))


_INSERT = _insert(transfer, Transfer._fields)
_COMPLETE = _insert(completion, (*Completion._fields, "catalogued"))
_LIST = Statement(
    sa.insert(catalogue)
    .prefix_with("OR REPLACE")
    .values({name: sa.bindparam(name) for name in Stored._fields})
)
_RECORD = _insert(event, ("id", *EventRow._fields))
_REGISTER = Statement(
    sa.insert(consumer)
    .prefix_with("OR IGNORE")
    .values({name: sa.bindparam(name) for name in ("name", "cursor", "registered_at")})
)
_p = sa.bindparam
_MESSAGES = Statement(
    sa.select(completion.c.id, *(completion.c[name] for name in Completion._fields))
    .where(completion.c.id > _p("p_after"))
    .order_by(completion.c.id)
    .limit(_p("p_limit"))
)
_COUNT = Statement(sa.select(sa.func.count()).select_from(completion))
_LAST_EVENT = Statement(sa.select(sa.func.coalesce(sa.func.max(event.c.id), sa.text("0"))))


class LocalPort:
    """See ``Port``.

    :param take_up: makes a transfer one whose bytes can be built on; its lock is held
    """

    def __init__(
        self,
        engine: Engine,
        home: Home,
        locks: Locks,
        records: Records,
        told: EventRecords,
        staging: Staging,
        transfers: Transfers,
        places: Places,
        folders: FlushedFolders,
        publisher: Publisher,
        published: Published,
        intents: Intents,
        catalogued: CatalogueRecords,
        take_up: TakeUp,
        timeout: float,
    ) -> None:
        self._engine, self._home, self._locks = engine, home, locks
        self._records, self._told, self._staging = records, told, staging
        self._transfers, self._places, self._folders = transfers, places, folders
        self._publisher, self._published, self._intents = publisher, published, intents
        self._catalogued, self._take_up, self._timeout = catalogued, take_up, timeout
        self.storage_dir, self.working_dir = home.storage_dir, home.working_dir
        self.store_id = records.identity(self._call())[0]

    def _call(self) -> Call:
        return Call.within(Deadline(self._timeout), self._home.clock)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing: of two stores one has servers, and there it is seen to."""
        yield

    # --- the fence ---------------------------------------------------------------------------

    def fence(self) -> Fence | None:
        """What keeps workers off."""
        [(found,)] = self._records.journal.read(_FENCE, {}, self._call())
        return Fence.read(str(found))

    def raise_fence(self, fence: Fence) -> None:
        """Keep workers off: each looks at the version in the transaction that records something."""
        self._home.make_durable()
        self._set_version(str(fence))

    def lift_fence(self) -> None:
        """Let workers in."""
        self._set_version(REVISION)

    def _set_version(self, version: str) -> None:
        self._records.journal.write(
            self._call(), Write(_SET_FENCE, {"version": version}, guarded=True)
        )
        self._records.flush(self._call())

    # --- what is here ------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Whether nothing was ever stored here, and nothing begun."""
        began = self.transfers() or self.count_messages() or self.last_event()
        return not began and not self.stored(None, 1)

    def settle(self) -> list[str]:
        """Settle what dead workers left."""
        damaged = []
        while left := self._records.intents(100, self._call()):
            for row in left:
                self._intents.settle(row, self._call())
        for row in self._records.transfers("", self._call()):
            try:
                with self._locks.transfer(row.file_id).held(self._call()) as lock:
                    found = self._take_up(row.file_id, None, self._call().begin(lock.turn))
                    if found is not None:
                        found[1].close()
            except StagingDamagedError:
                damaged.append(row.file_id)
        self._damaged = frozenset(damaged)
        return damaged

    _damaged: frozenset[str] = frozenset()

    def strange(self) -> Iterator[tuple[str, str]]:
        """What is in the storage and is no file."""
        return strange_in(self.storage_dir, self._home.own_folders())

    def stored(self, after: str | None, limit: int) -> list[StoredFile]:
        """As the engine's own."""
        return self._engine.stored(after, limit, self._call())

    def open_stored(self, name: str) -> OpenedFile:
        """As the engine's own."""
        return self._engine.open_stored(name, self._call())

    def transfers(self) -> list[OpenTransfer]:
        """The unfinished transfers."""
        rows = self._records.transfers("", self._call())
        return [
            OpenTransfer(
                *(row.file_id, row.segments, row.offset, row.last_size),
                *(row.created_at, row.updated_at),
            )
            for row in rows
            if row.file_id not in self._damaged
        ]

    def read(self, transfer: OpenTransfer) -> Iterator[bytes]:
        """The bytes of one."""
        with self._locks.transfer(transfer.file_id).held(self._call()):
            row = self._records.find(transfer.file_id, self._call())
            if row is None:
                raise StagingDamagedError(self.working_dir, transfer.file_id, "is gone")
            staged = self._staging.open(row)
            hasher = digest.new()
            try:
                while hasher.total < row.offset:
                    piece = staged.read(hasher.total, min(PIECE, row.offset - hasher.total))
                    if not piece:
                        break
                    hasher.update(piece)
                    yield piece
            finally:
                staged.close()
            recorded = digest.digest_of(row.state, row.offset)
            if hasher.total < row.offset or recorded not in (None, hasher.digest()):
                raise StagingDamagedError(staged.path, row.file_id, "is not what was received")

    def messages(self, after: int, limit: int) -> list[tuple[int, LastMessage]]:
        """Some last messages."""
        values = {"p_after": after, "p_limit": limit}
        rows = self._records.journal.read(_MESSAGES, values, self._call())
        return [(row[0], self._message(row[0], Completion(*row[1:]))) for row in rows]

    def _message(self, key: int, done: Completion) -> LastMessage:
        latest = self._records.latest_at(done.place, self._call())
        stands = latest is not None and latest[0] == key and self._published.still_there(done)
        return LastMessage(
            file_id=done.file_id,
            segments=done.segments,
            name=os.fsdecode(done.path),
            size=done.size,
            sha256=done.sha256,
            last=done.last,
            created_at=done.created_at,
            completed_at=done.completed_at,
            stands=stands,
        )

    def count_messages(self) -> int:
        """How many there are."""
        return self._number(_COUNT)

    def events(self, after: int, limit: int) -> list[Event]:
        """Some events after one."""
        return self._engine.events.after(after, limit, self._call())

    def last_event(self) -> int:
        """Number of the newest event."""
        return self._number(_LAST_EVENT)

    def consumers(self) -> list[Consumer]:
        """The consumers of events."""
        return self._engine.events.consumers(self._call())

    def _number(self, statement: Statement) -> int:
        [(found,)] = self._records.journal.read(statement, {}, self._call())
        return int(found)

    # --- what comes --------------------------------------------------------------------------

    def has(self, name: str, file: OpenedFile, tag: str) -> bool:
        """Whether a file was taken before: under its name it is whole, with its time; and the
        catalogue has it, which is recorded last."""
        del tag
        if self._catalogued.at(os.fsencode(name), self._call()) is None:
            return False
        with suppress(FileNotFoundError, NotADirectoryError):
            found = self._home.disk.stat(os.path.join(self.storage_dir, name))
            return (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns)
        return False

    def take_file(self, name: str, file: OpenedFile, tag: str) -> None:
        """Store a file: staged, seen to be right, flushed, renamed; its folder flushed."""
        del tag
        self._home.check_storage_in_place()
        place = self._places.resolve(name, name=name, file_id=None)
        with self._publisher.opened(place, name, None) as parents:
            try:
                self._take_file(self._staging.create(name, PRIVATE), place, parents, name, file)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # As where a message is published: a project quota, say.
                staged = self._staging.create_there(name, parents.folder)
                self._take_file(staged, place, parents, name, file)

    def _take_file(
        self, staged: StagedFile, place: Place, parents: Parents, name: str, file: OpenedFile
    ) -> None:
        try:
            file.file.seek(0)
            hashed = hashlib.sha256()
            for piece in checked(name, file):
                staged.write(staged.size, piece)
                hashed.update(piece)
            wanted = new_file_in(self._home.disk, parents.folder)
            if staged.made_there:
                wanted = wanted._replace(group=staged.group)
            give(self._home.disk, staged.fd, staged.group, wanted)
            self._home.disk.set_modified(staged.fd, file.mtime_ns)
            staged.flush_all()
            self._folders.flush_parents(parents)
            self._publisher.rename(staged.name, place, parents, name, None)
        except BaseException:
            self._staging.remove(staged.name)
            raise
        finally:
            staged.close()
        self._home.flush_folder(parents.folder)
        row = Stored(
            path=os.fsencode(name),
            place=place_bytes(place),
            size=file.size,
            sha256=hashed.digest(),
            inode=staged.inode,
            mtime_ns=file.mtime_ns,
            completed_at=file.mtime_ns / 1e9,
            boot="",
            durable=1,
        )
        self._write(Write(_LIST, row._asdict()))

    def take_transfer(self, transfer: OpenTransfer, pieces: Iterable[bytes]) -> None:
        """Begin a transfer: its bytes durable first, then its row."""
        with self._locks.transfer(transfer.file_id).held(self._call()) as lock:
            lock.begin_turn()
            call = self._call().begin(lock.turn)
            if self._records.find(transfer.file_id, call) is not None:
                return
            staged = self._staging.create(transfer.file_id)
            try:
                hasher = staged.hasher_new()
                for piece in pieces:
                    staged.write(hasher.total, piece)
                    hasher.update(piece)
                staged.flush()
                self._staging.flush_folder(staged.name)
                row = Transfer.begun(
                    transfer.file_id, staged.name, staged.inode, 0, hasher.save(), call.at
                )._replace(
                    segments=transfer.segments,
                    offset=hasher.total,
                    last_size=transfer.last_size,
                    created_at=transfer.created_at,
                    # Of an unknown boot: the wall clock says how old it is.
                    updated_at=transfer.updated_at,
                    boot="",
                    ticks=0.0,
                )
                self._write(Write(_INSERT, row.made_durable()._asdict()))
            except BaseException:
                # Where the row may be there, so may its bytes: the file stays, perhaps an orphan.
                staged.close()
                raise
            staged.close()

    def take_messages(self, before: int, messages: list[LastMessage]) -> None:
        """Record last messages, in one transaction."""
        if self.count_messages() != before:
            return
        self._write(
            *(
                Write(_COMPLETE, {**self._completion(one)._asdict(), "catalogued": 1})
                for one in messages
            )
        )

    def _completion(self, one: LastMessage) -> Completion:
        place = self._places.resolve(one.name, name=one.name, file_id=None)
        inode, modified = _NO_INODE, 0
        if one.stands:
            with suppress(FileNotFoundError, NotADirectoryError):
                found = self._home.disk.stat(os.path.join(self.storage_dir, one.name))
                inode, modified = found.st_ino, found.st_mtime_ns
        return Completion(
            file_id=one.file_id,
            segments=one.segments,
            path=os.fsencode(one.name),
            place=place_bytes(place),
            size=one.size,
            sha256=one.sha256,
            last=one.last,
            inode=inode,
            mtime_ns=modified,
            created_at=one.created_at,
            completed_at=one.completed_at,
            boot="",
            ticks=0.0,
            durable=1,
        )

    def take_events(self, after: int, events: list[Event]) -> None:
        """Record events, in one transaction."""
        if self.last_event() != after:
            return
        self._write(*(Write(_RECORD, _row_of(one)) for one in events))

    def take_consumers(self, consumers: list[Consumer], last: int) -> None:
        """Register consumers."""
        del last  # numbers go on after the newest event that is kept
        newest = self.last_event()
        self._write(
            *(
                Write(
                    _REGISTER,
                    {
                        "name": one.name,
                        "cursor": min(one.cursor, newest),
                        "registered_at": one.registered_at.timestamp(),
                    },
                )
                for one in consumers
            )
        )

    def _write(self, *writes: Write) -> None:
        call = self._call()
        if not self._records.journal.write(call, _STANDS, *writes):
            raise opened_meanwhile(self.working_dir)
        self._records.flush(call)


def _row_of(one: Event) -> dict[str, Any]:
    row = EventRow(
        kind=one.kind,
        file_id=one.file_id,
        segments=one.segments,
        size=one.size,
        path=None if one.name is None else os.fsencode(one.name),
        sha256=None if one.sha256 is None else bytes.fromhex(one.sha256),
        sender=one.sender,
        created_at=one.created_at.timestamp(),
        recorded_at=one.recorded_at.timestamp(),
        boot="",
        ticks=0.0,
    )
    return {"id": one.sequence, **row._asdict()}
