"""From staged bytes to an object under its name.

``docs/cluster-design.md`` lists what is there after a crash between any two steps, and why an
older worker can never put its object over a newer one.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import sqlalchemy as sa

from txstore.cluster import records, turns
from txstore.cluster.journal import Journal, Transaction
from txstore.cluster.keys import folders_of
from txstore.cluster.objects import Found, Objects
from txstore.cluster.parts import Parts
from txstore.cluster.records import Completion, Progress, Stored, Transfer
from txstore.cluster.retry import ChangedError, TransientError, pass_on
from txstore.deadline import Deadline
from txstore.errors import NameRefusedError, RequestError
from txstore.protocol.request import FileClaim, SegmentRequest

logger = logging.getLogger(__name__)


class _Composed(NamedTuple):
    """An upload that only has to be completed."""

    stored: Stored
    upload: str
    etags: list[str]


class Publisher:
    """Publishes for one engine.  Thread-safe.

    :param conditional: whether the object store keeps "only where there is none" of a PUT
    :param replaces: whether a file that is there may be replaced
    """

    def __init__(
        self,
        journal: Journal,
        objects: Objects,
        parts: Parts,
        *,
        conditional: bool,
        replaces: bool,
    ) -> None:
        self._journal, self._objects, self._parts = journal, objects, parts
        # Without an intent a file could be refused because of itself, after a crash.
        self._conditional = conditional and replaces
        self._replaces = replaces

    def publish_whole(
        self, request: SegmentRequest, claim: FileClaim, seen: int, deadline: Deadline
    ) -> None:
        """Store a file that came in one segment.

        :param seen: newest completion with its id when that was decided.  A worker may be paused
            after that, while another one answers the same message: then it decides anew
        :raises ChangedError: so it is, or a transfer with its id was begun meanwhile
        """
        stored = _stored(request, claim)
        if self._conditional and self._publish_new(request, claim, stored, seen, deadline):
            return
        composed = self._compose(None, request, stored, deadline)
        with self._turn(composed, deadline) as held:
            self._prepare(held, request, claim, deadline)
            with self._journal.within(held, deadline) as at:
                _check_newest(at, request, seen)
                key = records.begin(at, request.file_id, Progress(0, 0, 0, None, None))
                row = None if key is None else records.by_id(at, key)
                if row is None or not records.intend(at, row, stored, composed.upload):
                    raise ChangedError
            self._carry_out(held, row, request, composed, deadline)

    def _publish_new(
        self,
        request: SegmentRequest,
        claim: FileClaim,
        stored: Stored,
        seen: int,
        deadline: Deadline,
    ) -> bool:
        """Store a file where there is none, by one request; ``False``: there is one."""
        with turns.name(self._journal, claim.path, deadline) as held:
            if self._prepare(held, request, claim, deadline) is not None:
                return False
            with self._journal.within(held, deadline) as at:
                _check_newest(at, request, seen)
            # A worker that was paused just here finds another file there, and stops.
            if not self._objects.put_new(
                claim.path, request.payload, deadline, token=stored.token, sha256=stored.sha256
            ):
                raise ChangedError
            # On the connection that has the turn: without it nothing is recorded.
            with self._journal.within(held, deadline) as at:
                records.complete(at, request.file_id, 1, stored, None)
        return True

    def finish(
        self, row: Transfer, request: SegmentRequest, claim: FileClaim, deadline: Deadline
    ) -> None:
        """Publish an open transfer, with its last segment.

        :raises ChangedError: somebody changed the transfer meanwhile
        """
        stored = _stored(request, claim)
        composed = self._compose(row, request, stored, deadline)
        deadline = deadline.later(deadline.timeout / 2)  # to copy is not to wait
        with self._turn(composed, deadline) as held:
            self._prepare(held, request, claim, deadline)
            with self._journal.within(held, deadline) as at:
                if not records.intend(at, row, stored, composed.upload):
                    raise ChangedError
            self._carry_out(held, row, request, composed, deadline)

    def _compose(
        self, row: Transfer | None, request: SegmentRequest, stored: Stored, deadline: Deadline
    ) -> _Composed:
        """Upload a whole file, so that nobody sees it yet.  No turn is held: it takes long."""
        upload = self._objects.begin(stored.path, stored.token, stored.sha256, deadline)
        try:
            more = request.payload
            etags = self._parts.compose(row, more, stored.path, upload, deadline)
        except (ChangedError, TransientError):
            self._abort(stored.path, upload, deadline)
            raise
        return _Composed(stored, upload, etags)

    @contextmanager
    def _turn(self, composed: _Composed, deadline: Deadline) -> Iterator[sa.Connection]:
        """The turn to publish.  What is refused, or taken over, is nobody's upload any more."""
        path = composed.stored.path
        try:
            with turns.name(self._journal, path, deadline) as held:
                yield held
        except (ChangedError, TransientError, RequestError):
            # Also where its intent may have been recorded: then that is withdrawn, or was carried
            # out before.
            self._abort(path, composed.upload, deadline)
            raise

    def _abort(self, path: str, upload: str, deadline: Deadline) -> None:
        try:
            self._objects.abort(path, upload, deadline)
        except OSError as error:
            pass_on(error)
            logger.warning("An upload of %r was left to be aborted later: %s", path, error)

    def _prepare(
        self, held: sa.Connection, request: SegmentRequest, claim: FileClaim, deadline: Deadline
    ) -> Found | None:
        """Settle what was left under a name; what is there then.

        :raises NameRefusedError: a folder has the name, or a file that of a folder in it
        :raises ChangedError: a file has it meanwhile, and is not to be replaced
        """
        with self._journal.within(held, deadline) as at:
            left = records.by_path(at, claim.path)
        if left is not None:
            self._settle(held, left, deadline)
        found = self._objects.head(claim.path, deadline)
        if found is not None and not self._replaces:
            raise ChangedError
        if found is None:
            if self._objects.listed(f"{claim.path}/", None, 1, deadline).entries:
                raise NameRefusedError(claim.name, "a folder has it", file_id=request.given_id)
            for folder in folders_of(claim.path):
                if self._objects.head(folder, deadline) is not None:
                    raise NameRefusedError(
                        claim.name, f"{folder!r} is a file", file_id=request.given_id
                    )
        return found

    def _carry_out(
        self,
        held: sa.Connection,
        row: Transfer,
        request: SegmentRequest,
        composed: _Composed,
        deadline: Deadline,
    ) -> None:
        """Publish over whatever is there.  The intent is recorded: the upload is completed, or
        aborted by whoever withdraws it."""
        stored = composed.stored
        if not self._objects.complete(
            stored.path, composed.upload, composed.etags, stored.token, deadline
        ):
            raise ChangedError  # somebody took this worker for dead, and withdrew
        with self._journal.within(held, deadline) as at:
            current = records.by_id(at, row.id)
            if current is None or current.publish_token != stored.token:
                raise ChangedError  # somebody took this worker for dead, and completed it
            keys = self._complete(at, current, request.number)
        self._parts.discard(keys, deadline)

    @staticmethod
    def _complete(at: Transaction, row: Transfer, segments: int) -> list[str]:
        """A file is there: its row goes, its completion comes; keys of its parts."""
        stored = Stored(
            str(row.publish_path),
            str(row.publish_token),
            int(row.publish_size or 0),
            bytes(row.publish_sha256 or b""),
            bytes(row.publish_last or b""),
            row.publish_sender,
        )
        keys = [one.key for one in records.parts(at, row.id)]
        if not records.drop(at, row):
            raise ChangedError
        records.complete(at, row.file_id, segments, stored, row)
        return keys

    def settle(self, row: Transfer, deadline: Deadline) -> None:
        """Settle an intent that was left, by this worker or another: if its object is there, it is
        completed; otherwise it can never come, and is withdrawn."""
        assert row.publish_path is not None
        with turns.name(self._journal, row.publish_path, deadline) as held:
            self._settle(held, row, deadline)

    def settle_if_left(self, row: Transfer, deadline: Deadline) -> None:
        """The same, unless a worker is alive that is at it."""
        assert row.publish_path is not None
        with turns.free_name(self._journal, row.publish_path, deadline) as held:
            if held is not None:
                self._settle(held, row, deadline)

    def _settle(self, held: sa.Connection, row: Transfer, deadline: Deadline) -> None:
        with self._journal.within(held, deadline) as at:
            current = records.by_id(at, row.id)
        if current is None or current.publish_token is None:
            return  # who had the turn before was alive
        path = str(current.publish_path)
        # First: what is not there after that will never be, however long its worker was paused.
        self._objects.abort(path, str(current.publish_upload), deadline)
        found = self._objects.head(path, deadline)
        with self._journal.within(held, deadline) as at:
            if found is not None and found.token == current.publish_token:
                keys = self._complete(at, current, current.segments + 1)
            else:
                records.withdraw(at, current)
                keys = []
        self._parts.discard(keys, deadline)

    def is_taken(self, path: str, deadline: Deadline) -> bool:
        """Whether a file has a name now."""
        return self._objects.head(path, deadline) is not None

    def is_as_published(self, done: Completion, deadline: Deadline) -> bool:
        """Whether a file is the one that was published."""
        found = self._objects.head(done.path, deadline)
        return found is not None and found.token == done.token


def _check_newest(at: Transaction, request: SegmentRequest, seen: int) -> None:
    """:raises ChangedError: a last message with the id was carried out meanwhile"""
    if records.newest(at, request.file_id) != seen:
        raise ChangedError


def _stored(request: SegmentRequest, claim: FileClaim) -> Stored:
    return Stored(
        path=claim.path,
        token=uuid.uuid4().hex,
        size=claim.size,
        sha256=claim.sha256,
        last=hashlib.sha256(request.payload).digest(),
        sender=request.sender,
    )
