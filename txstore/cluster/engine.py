"""What a manager has opened in one process, and one request from top to bottom.

Each call is attempted until it is known how it went: every attempt first reads what is there.  So a
commit whose answer was lost is found out before anything is answered from it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol, TypeVar

from txstore.checks import Finding
from txstore.cluster import catalogue, records, status
from txstore.cluster.addresses import read_bucket
from txstore.cluster.belongings import Belongings
from txstore.cluster.cleaning import Cleaning
from txstore.cluster.consumers import Consumers
from txstore.cluster.events import ClusterEvents
from txstore.cluster.journal import Journal
from txstore.cluster.keys import KeyRules
from txstore.cluster.measured import MeasuredServers
from txstore.cluster.objects import MARKER, Objects
from txstore.cluster.parts import Parts
from txstore.cluster.port import ClusterPort
from txstore.cluster.publish import Publisher
from txstore.cluster.records import Transfer
from txstore.cluster.retry import ChangedError, TransientError, pass_on, retrying
from txstore.cluster.segments import Appender, UnsettledError
from txstore.cluster.servers import Servers
from txstore.cluster.stored import StoredObjects
from txstore.cluster.upgrade import check_keeps, make_current
from txstore.deadline import Deadline
from txstore.errors import LimitError, OptionError, RequestError, StoreMismatchError, TakenOverError
from txstore.limits import Limits
from txstore.metrics import Metrics
from txstore.options import Durability
from txstore.process import forks
from txstore.protocol.admission import wants_room
from txstore.protocol.catalogue import Page
from txstore.protocol.constants import FileStoreResultProp
from txstore.protocol.names import NameRules
from txstore.protocol.request import FileClaim, FileStoreSegmentResult, SegmentRequest
from txstore.protocol.rules import Fact, Known, Refusal, Step, decide
from txstore.protocol.status import Totals, TransferStatus
from txstore.protocol.stored import OpenedFile, StoredFile

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Options(Protocol):
    """What an engine is opened with; the manager's own options, checked."""

    @property
    def storage_dir(self) -> str | os.PathLike[str]: ...
    @property
    def working_dir(self) -> str | os.PathLike[str] | None: ...
    @property
    def level(self) -> Durability: ...
    @property
    def lock_timeout(self) -> float: ...
    @property
    def expire_after(self) -> float: ...
    @property
    def keep_completed(self) -> float: ...
    @property
    def keep_events(self) -> float: ...
    @property
    def max_events(self) -> int: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def replaces(self) -> bool: ...
    @property
    def auto_migrate(self) -> bool: ...
    @property
    def metrics(self) -> Metrics | None: ...


class ClusterEngine:
    """The opened parts of a manager.  Thread-safe; of the process that opened it.

    :param servers: the calls to the two servers; tests pass their own
    """

    spoilt = False

    def __init__(
        self, options: Options, servers: Servers | None = None, *, moving: bool = False
    ) -> None:
        servers = servers or Servers()
        if options.metrics is not None:
            servers = MeasuredServers(servers, options.metrics)
        self._servers = servers
        self._limits = options.limits
        if self._limits.min_free is not None:
            raise OptionError(
                "min_free is for a store in two folders: an object store does not say what it has"
                " free.",
                option="min_free",
                received=self._limits.min_free,
            )
        self._taken = False if options.replaces else None
        assert options.working_dir is not None
        bucket = read_bucket(options.storage_dir)
        self.storage_dir = bucket.url
        self.names: NameRules = KeyRules(bucket)
        deadline = Deadline(options.lock_timeout)
        with ExitStack() as failed:
            url = os.fspath(options.working_dir)
            self._journal = journal = Journal(url, servers, options.lock_timeout, moving=moving)
            failed.callback(journal.close)
            self.working_dir = journal.where
            self._objects = objects = Objects(bucket, servers, options.lock_timeout)
            failed.callback(objects.close)
            if options.level.keeps_files:
                journal.ask(lambda at: check_keeps(journal, at), deadline)
            storage = f"s3://{bucket.name}/{bucket.prefix}"  # wherever its server is
            conditional = self._retrying(
                lambda: self._open(storage, deadline, auto_migrate=options.auto_migrate), deadline
            )
            self._parts = Parts(journal, objects, bucket.part_size)
            self._appender = Appender(journal, self._parts, options.limits, options.level)
            self._publisher = Publisher(
                journal,
                objects,
                self._parts,
                conditional=conditional,
                replaces=options.replaces,
            )
            self._stored = StoredObjects(objects)
            self.events = ClusterEvents(journal, servers)
            self._cleaning = Cleaning(
                journal,
                servers,
                objects,
                self._parts,
                self._publisher,
                Consumers(journal, options.keep_events, options.max_events),
                expire_after=options.expire_after,
                keep_completed=options.keep_completed,
            )
            forks.disown_in_children(self)
            self._belongings = belongings = Belongings(journal, objects)
            failed.pop_all()
        # A manager that is dropped without `close` must not leak its connections.
        self._release = weakref.finalize(self, belongings.let_go)

    def _open(self, storage: str, deadline: Deadline, *, auto_migrate: bool) -> bool:
        """Make the store, unless it is there; whether the object store keeps conditions."""
        make_current(self._journal, deadline, auto_migrate=auto_migrate)
        with self._journal.transaction(deadline) as at:
            found = records.identity(at)
        if found is None:
            conditional = self._keeps_conditions(deadline)
            with self._journal.transaction(deadline) as at:
                records.make_identity(at, uuid.uuid4().hex, storage, conditional=conditional)
                found = records.identity(at)
        assert found is not None
        store_id, recorded, conditional = found
        self._journal.salt = store_id.encode()
        marker = self._objects.head(MARKER, deadline)
        if marker is None and recorded == storage:
            self._objects.put_new(MARKER, b"", deadline, token=store_id)
            marker = self._objects.head(MARKER, deadline)
        if recorded != storage or marker is None or marker.token != store_id:
            raise StoreMismatchError(
                f"The journal {self.working_dir} and the storage {self.storage_dir} do not belong"
                f" together: the journal is that of {recorded!r}. Use the pair that belongs"
                " together.",
                storage_dir=self.storage_dir,
                working_dir=self.working_dir,
            )
        return conditional

    def _keeps_conditions(self, deadline: Deadline) -> bool:
        """Whether a PUT that is to make an object leaves one alone that is there."""
        probe = f"{MARKER}-{uuid.uuid4().hex}"
        try:
            first = self._objects.put_new(probe, b"", deadline, token="first")
            return first and not self._objects.put_new(probe, b"", deadline, token="second")
        finally:
            self._objects.delete([probe], deadline)

    def is_usable(self) -> bool:
        """Whether nothing is known against it, this is the process that opened it, and its
        connections are its own still."""
        return not self.spoilt and self._belongings.are_ours()

    def let_go(self) -> None:
        """After a call of this thread failed, wherever.  Connections were let go of there."""
        self._cleaning.let_go()

    def abandon(self) -> None:
        """Let go of everything without waiting for anybody."""
        if self._belongings.are_ours():
            self.events.close()
        else:
            self.events.disown()
        self._release()

    def disown(self) -> None:
        """In a forked child: the connections are the parent's."""
        self.events.disown()
        self._journal.disown()

    def close(self) -> None:
        """Let go of everything in good order.  No call is inside."""
        self.abandon()

    # --- the protocol ------------------------------------------------------------------------

    def deadline(self, timeout: float) -> Deadline:
        """What bounds the waiting of one call."""
        return Deadline(timeout)

    def store_segment(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        """Take one message of a transfer."""
        if request.cancel:
            return self.cancel(request, deadline)
        try:
            answer = self._answer(request, deadline)
        except (OSError, LimitError) as error:
            # What is expired goes before anybody is told that there is no room.
            if not wants_room(error) or not self._make_room(request.file_id, deadline):
                raise
            answer = self._answer(request, deadline)
        self._cleaning.after_answer(request.file_id, deadline)
        return answer

    def _answer(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        if request.store is None:
            self._attempt(request, lambda: self._appender.take(request, deadline), deadline)
            return FileStoreSegmentResult(request.file_id, request.number)
        last = _Last()
        self._attempt(request, lambda: self._take_last(request, last, deadline), deadline)
        return FileStoreSegmentResult(request.file_id, request.number, FileStoreResultProp.STORE)

    def _make_room(self, file_id: str, deadline: Deadline) -> bool:
        try:
            return bool(self._cleaning.expire(deadline, spare=file_id))
        except (OSError, TransientError, ChangedError) as error:
            pass_on(error)
            logger.warning("No more room could be made: %s", error)
            return False

    def cancel(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        """Drop an unfinished transfer."""
        last = _Last()
        segments = self._attempt(request, lambda: self._cancel(request, last, deadline), deadline)
        return FileStoreSegmentResult(request.file_id, segments, FileStoreResultProp.CANCEL)

    def _attempt(self, request: SegmentRequest, work: Callable[[], T], deadline: Deadline) -> T:
        """Do some work until it is known how it went."""

        def attempt() -> T:
            error: UnsettledError | ChangedError
            while True:
                try:
                    return work()
                except UnsettledError as unsettled:
                    error = unsettled
                except ChangedError as changed:
                    error = changed
                try:
                    if isinstance(error, UnsettledError) and deadline.left():
                        self._publisher.settle(error.row, deadline)
                        continue
                except ChangedError:
                    pass
                raise TransientError(TakenOverError(self.working_dir, request.file_id))

        return self._retrying(attempt, deadline)

    def _retrying(self, work: Callable[[], T], deadline: Deadline) -> T:
        return retrying(work, deadline, self._servers)

    def _take_last(self, request: SegmentRequest, last: _Last, deadline: Deadline) -> None:
        """A last message; its transfer's row is not locked, but each step on it is guarded."""
        claim = request.store
        assert claim is not None
        with self._journal.transaction(deadline) as at:
            row = records.find(at, request.file_id)
        if row is not None and row.publish_token is not None:
            raise UnsettledError(row)
        if row is None and last.refused is not None:
            raise last.refused  # this very message ended it
        segments, size = (row.segments, row.offset) if row is not None else (0, 0)
        known = Known(segments, size, taken=self._taken)
        while isinstance(step := decide(request, known, self._limits), Fact):
            if step is Fact.TAKEN:
                # If it is not, whoever publishes looks once more, while nobody else can.
                known = known._replace(taken=self._publisher.is_taken(claim.path, deadline))
            elif step is Fact.CONTENT:
                hasher = self._parts.hasher(row, deadline)
                hasher.update(request.payload)
                known = known._replace(content=(hasher.total, hasher.digest()))
            else:
                assert step is Fact.ANSWERED
                known = known._replace(answered=self._is_answered(request, last, deadline))
        if isinstance(step, Refusal):
            if step.ends and row is not None:
                last.refused = step.error
                self._drop(row, deadline)
            raise step.error
        if step is Step.STORE:
            self._publisher.publish_whole(request, claim, last.seen, deadline)
        elif row is not None and step is not Step.ANSWER:
            self._end(step, row, request, claim, deadline)

    def _end(
        self,
        step: Step,
        row: Transfer,
        request: SegmentRequest,
        claim: FileClaim,
        deadline: Deadline,
    ) -> None:
        if step is Step.END:  # its file is there
            self._drop(row, deadline)
        else:
            self._publisher.finish(row, request, claim, deadline)

    def _drop(self, row: Transfer, deadline: Deadline) -> None:
        with self._journal.transaction(deadline) as at:
            keys = [one.key for one in records.parts(at, row.id)]
            if not records.drop(at, row):
                raise ChangedError
        self._parts.discard(keys, deadline)

    def _is_answered(self, request: SegmentRequest, last: _Last, deadline: Deadline) -> bool:
        """Whether an equal last message was carried out, and can still be answered for."""
        claim = request.store
        assert claim is not None
        wanted = (request.number, claim.path, claim.size, claim.sha256)
        digest = hashlib.sha256(request.payload).digest()
        with self._journal.transaction(deadline) as at:
            found = records.completions(at, request.file_id)
            last.seen = found[0].id if found else 0
            equal = [
                done
                for done in found
                if (done.segments, done.path, done.size, done.sha256) == wanted
                and done.last == digest
            ]
            latest = records.latest_at(at, claim.path) if equal else None
        if not equal:
            return False
        if request.number > 1 or (latest is not None and latest > equal[0].id):
            return True
        return self._publisher.is_as_published(equal[0], deadline)

    def _cancel(self, request: SegmentRequest, last: _Last, deadline: Deadline) -> int:
        with self._journal.transaction(deadline) as at:
            row = records.lock(at, request.file_id)
            if row is None:
                # An attempt whose answer was lost may have dropped it.
                ended = None if last.dropping is None else records.ended(at, last.dropping)
                return ended[1] if ended is not None and ended[0] == "cancelled" else 0
            if row.publish_token is not None:
                raise UnsettledError(row)
            last.dropping = row.id
            keys = [one.key for one in records.parts(at, row.id)]
            if not records.drop(at, row):
                raise ChangedError
            records.dropped(at, "cancelled", row, request.sender)
        logger.info("Transfer %r was cancelled at segment %d", row.file_id, row.segments)
        self._parts.discard(keys, deadline)
        return row.segments

    # --- looking, and ends -------------------------------------------------------------------

    def transfers(self, prefix: str, deadline: Deadline) -> list[TransferStatus]:
        """The unfinished transfers whose ids begin with a text, oldest first."""
        rows = self._journal.ask(lambda at: records.transfers(at, prefix), deadline)
        return [status.of_transfer(row) for row in rows]

    def count_transfers(self, deadline: Deadline) -> int:
        """How many unfinished transfers there are."""
        return self._journal.ask(records.count, deadline)

    def totals(self, deadline: Deadline) -> Totals:
        """What there is in all."""
        transfers, size, oldest_age = self._journal.ask(records.totals, deadline)
        behind = (one.behind for one in self.events.consumers(deadline))
        return Totals(transfers, size, oldest_age, max(behind, default=0), free=None)

    def status(self, file_id: str, deadline: Deadline) -> TransferStatus | None:
        """One transfer, settled first."""

        def work() -> TransferStatus | None:
            with self._journal.transaction(deadline) as at:
                row = records.find(at, file_id)
                done = records.completions(at, file_id) if row is None else []
            if row is not None and row.publish_token is not None:
                raise UnsettledError(row)
            if row is not None:
                return status.of_transfer(row)
            return status.of_completion(done[0]) if done else None

        return self._attempt(SegmentRequest(file_id, 0, b""), work, deadline)

    def stored(self, after: str | None, limit: int, deadline: Deadline) -> list[StoredFile]:
        """Some stored files, in the order of their keys."""
        return self._stored.files(after, limit, deadline)

    def open_stored(self, name: str, deadline: Deadline) -> OpenedFile:
        """A stored file, for reading."""
        return self._stored.open(self.names.normalise(name, None), deadline)

    def stored_sha256(self, path: str, found: os.stat_result, deadline: Deadline) -> str | None:
        """The hash of a stored file, as its metadata says."""
        del found  # what is there now is asked for
        there = self._retrying(lambda: self._objects.head(path, deadline), deadline)
        return None if there is None or there.token is None else there.sha256

    def catalogue(self, after: str, limit: int, deadline: Deadline) -> Page:
        """Some of the stored files, in the order of their keys: what their metadata says."""
        return self._retrying(
            lambda: catalogue.page(self._objects, after, limit, deadline), deadline
        )

    def expire(self, deadline: Deadline) -> list[str]:
        """Drop all transfers whose time has passed; their ids."""
        ids: list[str] = []
        self._retrying(lambda: ids.extend(self._cleaning.expire(deadline)), deadline)
        return ids

    def port(self, timeout: float) -> ClusterPort:
        """For who moves the store.

        :param timeout: seconds that each step may wait
        """
        parts = self._journal, self._objects, self._parts, self._publisher, self._servers
        return ClusterPort(self, *parts, timeout)

    def mend(self, found: Finding, deadline: Deadline) -> bool:
        """Mend what a check found."""
        if found.kind == "orphan":
            key = str(found.facts["path"])
            return self._retrying(lambda: self._cleaning.remove_orphan(key, deadline), deadline)
        return found.kind == "marker-missing"  # which was written when this was opened


class _Last:
    """What an attempt at a call was about to do when its answer was lost.

    :ivar refused: the error of a message that ended its transfer
    :ivar dropping: key of the row that was to be dropped
    :ivar seen: newest completion with the message's id; 0: there was none
    """

    refused: RequestError | None = None
    dropping: int | None = None
    seen: int = 0
