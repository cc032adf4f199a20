"""A store over many hosts, looked at without writing anything: rows against objects."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from txstore import digest
from txstore.checks import Finding, Verified, finding
from txstore.cluster import catalogue, leftovers, records, schema
from txstore.cluster.addresses import read_bucket
from txstore.cluster.journal import Journal, Transaction
from txstore.cluster.keys import KeyRules
from txstore.cluster.objects import MARKER, STAGING, Objects
from txstore.cluster.records import Completion, Part, Transfer
from txstore.cluster.retry import retrying
from txstore.cluster.schema import completion, tail, transfer
from txstore.cluster.servers import Servers
from txstore.cluster.upgrade import check_revision
from txstore.deadline import Deadline
from txstore.errors import ObjectStoreError
from txstore.protocol.catalogue import Page, Reached
from txstore.protocol.status import Totals

#: Rows, or keys, that are looked at in one transaction.
_PAGE = 500

_READ_ONLY = sa.text("SET TRANSACTION READ ONLY")
_TRANSFERS = (
    sa.select(*(transfer.c[name] for name in Transfer._fields))
    .where(transfer.c.id > sa.bindparam("after"))
    .order_by(transfer.c.id)
    .limit(_PAGE)
)
_TAIL = sa.select(
    sa.func.count(),
    sa.func.coalesce(sa.func.sum(sa.func.octet_length(tail.c.data)), 0),
).where(tail.c.transfer_id == sa.bindparam("id"))
_newer = completion.alias("newer")
#: The newest completion of each name.
_STORED = (
    sa.select(*(completion.c[name] for name in Completion._fields))
    .where(
        completion.c.id > sa.bindparam("after"),
        ~sa.exists().where(_newer.c.path == completion.c.path, _newer.c.id > completion.c.id),
    )
    .order_by(completion.c.id)
    .limit(_PAGE)
)
_BEHIND = sa.select(
    sa.func.coalesce(
        sa.select(sa.func.count())
        .select_from(schema.event)
        .where(
            sa.func.coalesce(schema.event.c.sequence, 2**62)
            > sa.select(sa.func.min(schema.consumer.c.cursor)).scalar_subquery()
        )
        .scalar_subquery(),
        0,
    )
)


class ClusterInspector:
    """Looks at a store.  Holds nothing open between calls; safe to use from any thread.

    :raises FileNotFoundError: there is no store
    """

    def __init__(
        self,
        servers: Servers | None,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str],
        lock_timeout: float,
    ) -> None:
        self._servers, self._timeout = servers or Servers(), lock_timeout
        self._bucket, self._url = read_bucket(storage_dir), os.fspath(working_dir)
        self.storage_dir = self._bucket.url
        with self._look() as look:
            self.working_dir = look.journal.where

    @contextmanager
    def _look(self) -> Iterator[_Look]:
        journal = Journal(self._url, self._servers, self._timeout)
        try:
            objects = Objects(self._bucket, self._servers, self._timeout)
            try:
                look = _Look(journal, objects, self._servers, self._timeout)
                if not look.read(lambda at: check_revision(journal, at) and records.identity(at)):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), journal.where)
                yield look
            finally:
                objects.close()
        finally:
            journal.close()

    def totals(self) -> Totals:
        """What there is in all."""
        with self._look() as look:
            count, size, age = look.read(records.totals)
            [(behind,)] = look.rows(_BEHIND)
        return Totals(count, size, age, behind, None)

    def check(self, *, deep: bool) -> Iterator[Finding]:
        """What is wrong with the store, part by part.

        :param deep: read all bytes, not only those of which nothing else tells
        """
        with self._look() as look:
            yield from look.belonging(f"s3://{self._bucket.name}/{self._bucket.prefix}")
            yield from look.transfers(deep=deep)
            yield from look.orphans()
            yield from look.stored(deep=deep)

    # --- stored files ------------------------------------------------------------------------

    def catalogue(self, after: str, limit: int) -> Page:
        """Some of the stored files, in the order of their keys."""
        with self._look() as look:
            return catalogue.page(look.objects, after, limit, Deadline(self._timeout))

    def verify(self, after: str, reached: Reached) -> Iterator[Verified]:
        """Read all files, from after a key on."""
        with self._look() as look:
            yield from catalogue.verify(look.objects, after, reached, self._timeout)

    def verify_named(self, name: str, reached: Reached) -> Verified:
        """Read one file."""
        path = KeyRules(self._bucket).normalise(name, None)
        with self._look() as look:
            return catalogue.verified(look.objects, path, reached, self._timeout)


class _Look:
    """What one look has open."""

    def __init__(
        self, journal: Journal, objects: Objects, servers: Servers, timeout: float
    ) -> None:
        self.journal, self.objects = journal, objects
        self._servers, self._timeout = servers, timeout

    def read(self, work: Callable[[Transaction], Any]) -> Any:
        """Read the journal, in a transaction that cannot write."""
        deadline = Deadline(self._timeout)

        def attempt() -> Any:
            with self.journal.transaction(deadline) as at:
                at.run(_READ_ONLY)
                return work(at)

        return retrying(attempt, deadline, self._servers)

    def rows(self, statement: sa.Executable, **values: Any) -> list[Any]:
        """The rows that a statement finds."""
        found: list[Any] = self.read(lambda at: list(at.run(statement, values)))
        return found

    def belonging(self, storage: str) -> Iterator[Finding]:
        """Whether the two servers belong together."""
        store_id, recorded, _ = self.read(records.identity) or ("", "", False)
        marker = self.objects.head(MARKER, Deadline(self._timeout))
        if recorded != storage or (marker is not None and marker.token != store_id):
            problem = f"the journal is that of {recorded!r}"
            yield finding("folders-mismatched", problem=problem)
        elif marker is None:
            yield finding("marker-missing", path=storage + MARKER)

    # --- unfinished transfers ----------------------------------------------------------------

    def transfers(self, *, deep: bool) -> Iterator[Finding]:
        """What is wrong with unfinished transfers, and still is when looked at once more."""
        after = 0
        while rows := self.rows(_TRANSFERS, after=after):
            for row in map(Transfer._make, rows):
                found = list(self._of_transfer(row, deep=deep))
                if found and self._is_still(row):
                    yield from found
            after = rows[-1][0]

    def _is_still(self, row: Transfer) -> bool:
        return bool(self.read(lambda at: records.by_id(at, row.id)) == row)

    def _of_transfer(self, row: Transfer, *, deep: bool) -> Iterator[Finding]:
        parts, (count, size) = self.read(
            lambda at: (records.parts(at, row.id), at.run(_TAIL, {"id": row.id}).one())
        )
        problem = _problem(row, parts, count, size)
        if problem is not None:
            yield finding("transfer-row", file_id=row.file_id, problem=problem)
            return
        hasher = digest.new()
        for part in parts:
            there = self.objects.head(part.key, Deadline(self._timeout))
            if there is None:
                yield finding("transfer-missing", file_id=row.file_id, path=part.key)
                return
            same = (there.size, there.etag) == (part.size, part.etag)
            if same and deep:
                data = self.objects.get(part.key, Deadline(self._timeout))
                hasher.update(data)
                same = hashlib.sha256(data).digest() == part.sha256
            if not same:
                yield finding("transfer-changed", file_id=row.file_id, path=part.key)
                return
        if deep:
            hasher.update(self.read(lambda at: records.read_tail(at, row)))
            if digest.digest_of(row.state, row.offset) not in (None, hasher.digest()):
                yield finding("transfer-changed", file_id=row.file_id, path=self.journal.where)

    # --- objects -----------------------------------------------------------------------------

    def orphans(self) -> Iterator[Finding]:
        """Staged objects that no row speaks of."""
        after: str | None = None
        while True:
            listed = self.objects.listed(STAGING, after, _PAGE, Deadline(self._timeout))
            known = self._known(listed.keys)
            for key in listed.keys:
                there = None
                if key not in known:
                    there = self.objects.head(key, Deadline(self._timeout))
                if there is not None:
                    yield finding("orphan", path=key, size=there.size)
            after = listed.after
            if after is None:
                return

    def _known(self, keys: list[str]) -> set[str]:
        found: set[str] = self.read(lambda at: leftovers.known(at, keys))
        return found

    def stored(self, *, deep: bool) -> Iterator[Finding]:
        """Files that were stored lately, and are not as they were."""
        after = 0
        while rows := self.rows(_STORED, after=after):
            for done in map(Completion._make, rows):
                kind = self._of_stored(done, deep=deep)
                if kind is not None and self._is_newest(done):
                    yield finding(kind, name=done.path)
            after = rows[-1][0]

    def _of_stored(self, done: Completion, *, deep: bool) -> str | None:
        there = self.objects.head(done.path, Deadline(self._timeout))
        if there is None:
            return "stored-missing"
        if there.token != done.token:
            return "stored-changed"
        if there.size != done.size:
            return "stored-damaged"
        if deep:
            hasher = hashlib.sha256()
            try:
                for data in self.objects.pieces(done.path, done.size, Deadline(self._timeout)):
                    hasher.update(data)
            except ObjectStoreError as error:
                if error.errno == errno.ENOENT:
                    return "stored-missing"
                raise
            if hasher.digest() != done.sha256:
                return "stored-damaged"
        return None

    def _is_newest(self, done: Completion) -> bool:
        """Whether nobody replaced it meanwhile, or is about to."""

        def work(at: Transaction) -> bool:
            latest, intent = records.latest_at(at, done.path), records.by_path(at, done.path)
            return latest == done.id and intent is None

        return bool(self.read(work))


def _problem(row: Transfer, parts: list[Part], count: int, size: int) -> str | None:
    """What cannot be in a row, or between it and its parts and its tail."""
    if [one.number for one in parts] != list(range(1, row.parts + 1)):
        return f"it has {len(parts)} of {row.parts} parts"
    staged = sum(one.size for one in parts)
    if staged != row.staged:
        return f"its parts have {staged} of {row.staged} bytes"
    if size != row.tail or count > row.segments:
        return f"its tail has {size} of {row.tail} bytes"
    if row.state is not None and digest.total(row.state) != row.offset:
        return "its hash is of other bytes than it has"
    return None
