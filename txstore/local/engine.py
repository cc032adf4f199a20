"""What a manager has opened in one process, and one request from top to bottom.

It reads like the protocol; how bytes are staged, published, recovered, locked and recorded is said
in the modules of those names, and why in ``docs/design.md``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import weakref
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import NamedTuple, cast

from txstore.checks import Finding
from txstore.deadline import Deadline
from txstore.errors import LimitError, RequestError
from txstore.limits import Limits
from txstore.local import status
from txstore.local.append import Appender
from txstore.local.belongings import Belongings, disown_lost
from txstore.local.catalogue import Sweeping, WithFiles
from txstore.local.clock import Call
from txstore.local.ending import Ending
from txstore.local.events import LocalEvents
from txstore.local.files.disk import Disk
from txstore.local.files.flushed import FlushedFolders
from txstore.local.files.home import Home
from txstore.local.files.places import Places
from txstore.local.files.staged import StagedFile
from txstore.local.files.staging import Staging
from txstore.local.files.stored import StoredFiles
from txstore.local.forgetting import Forgetting, ForgettingEvents, Slices
from txstore.local.housekeeping import Housekeeping
from txstore.local.intents import Intents
from txstore.local.journal.catalogue_records import CatalogueRecords
from txstore.local.journal.event_records import EventRecords
from txstore.local.journal.opening import open_records
from txstore.local.journal.rows import Event, Transfer
from txstore.local.lockfile import Waiting
from txstore.local.locks import Locks
from txstore.local.measured import MeasuredDisk
from txstore.local.port import LocalPort
from txstore.local.publish import Publisher
from txstore.local.published import Published
from txstore.local.recovery import Recovery
from txstore.local.repair import Repair
from txstore.local.repeats import Repeats
from txstore.local.transfers import Transfers
from txstore.local.whole import WholeFiles
from txstore.metrics import Metrics, Timed
from txstore.options import Durability
from txstore.process import forks
from txstore.protocol.admission import Quota, Usage, wants_room
from txstore.protocol.catalogue import Page
from txstore.protocol.constants import FileStoreResultProp
from txstore.protocol.names import NameRules
from txstore.protocol.request import FileClaim, FileStoreSegmentResult, SegmentRequest
from txstore.protocol.rules import Fact, Known, Refusal, Step, decide
from txstore.protocol.status import Totals, TransferStatus
from txstore.protocol.stored import OpenedFile, StoredFile

logger = logging.getLogger(__name__)


class Options(NamedTuple):
    """What an engine is opened with; the manager's own options, checked."""

    storage_dir: str | os.PathLike[str]
    working_dir: str | os.PathLike[str] | None
    level: Durability
    lock_timeout: float
    expire_after: float
    keep_completed: float
    keep_events: float
    max_events: int
    mode: int
    allow_network_fs: bool
    limits: Limits
    replaces: bool
    catalogue: bool
    auto_migrate: bool
    disk: Disk
    metrics: Metrics | None


class LocalEngine:
    """The opened parts of a manager.  Thread-safe; of the process that opened it.

    :ivar events: what is told of transfers that ended
    :ivar spoilt: whether a call was cut off in the middle, so that nothing kept in memory is known
        to be right; it is used by nobody else then, and closed when its last call is over
    """

    spoilt = False

    def __init__(self, options: Options, *, moving: bool = False) -> None:
        forks.here()
        disown_lost()
        self._level = level = options.level
        self._limits = options.limits if options.limits != Limits() else None
        # Whether the last one that asked for more than others have left found no place.
        self._crowded = False
        disk, waiting = options.disk, cast(Waiting, nullcontext)
        if options.metrics is not None:
            disk = MeasuredDisk(disk, options.metrics)
            waiting = partial(Timed, options.metrics, "lock")
        # What is known from the beginning of the name that a file is to have.
        self._taken = False if options.replaces else None
        self._belongings = belongings = Belongings()
        with ExitStack() as failed:
            failed.callback(belongings.let_go)
            self._home = home = Home(
                disk,
                options.storage_dir,
                options.working_dir,
                mode=options.mode,
                allow_network_fs=options.allow_network_fs,
            )
            self._disk, self._clock = home.disk, home.clock
            belongings.keep(home, home.close)
            belongings.witnesses.append(home)
            self.storage_dir, self.working_dir = home.storage_dir, home.working_dir
            self.names = NameRules(home.storage_dir, home.working_dir)
            self._locks = locks = Locks(home.disk, home.locks_path, home.locks, home.mode, waiting)
            belongings.keep(locks, locks.close)
            # Before any is held: a child of another thread must not keep it.
            forks.disown_in_children(home, locks)
            self._records = records = open_records(
                home,
                locks.journal,
                options.lock_timeout,
                moving=moving,
                auto_migrate=options.auto_migrate,
            )
            records.catalogues = options.catalogue
            belongings.keep(records.journal, records.abandon)
            locks.make_file()
            belongings.witnesses.append(records.journal.connection)
            own = home.own_folders()
            self._places = places = Places(home.disk, home.storage_dir, home.storage, own)
            self._staging = staging = Staging(home)
            self._in_hand = staging.in_hand
            belongings.keep(staging, staging.close)
            self._transfers = transfers = Transfers(home, staging, records, level)
            self._folders = folders = FlushedFolders(home)
            belongings.keep(folders, folders.close)
            self._published = published = Published(home, places, folders)
            self._publisher = publisher = Publisher(
                home, places, staging, records, transfers, folders, published, level
            )
            whole = WholeFiles(
                home,
                staging,
                records,
                transfers,
                folders,
                publisher,
                level,
                replaces=options.replaces,
            )
            self._appender = Appender(staging, records, transfers, level)
            self._repeats = Repeats(home, records, published, level)
            self._intents = intents = Intents(
                home,
                locks,
                staging,
                records,
                transfers,
                publisher,
                level,
                replaces=options.replaces,
            )
            self._ending = Ending(locks, transfers, intents, publisher, whole)
            self._recovery = Recovery(home, staging, records, transfers, intents)
            self._told = told = EventRecords(records.journal, options.max_events)
            self.events = events = LocalEvents(home, locks, told, level)
            belongings.keep(events, events.close)
            files = WithFiles(home)
            self._stored = stored = CatalogueRecords(records.journal, files.has)
            forgetting: list[Slices] = [
                Forgetting(stored, options.keep_completed),
                Sweeping(stored, files),
                ForgettingEvents(told, options.keep_events, options.max_events),
            ]
            self._housekeeping = keeping = Housekeeping(
                home,
                locks,
                staging,
                records,
                transfers,
                intents,
                options.expire_after,
                forgetting,
            )
            belongings.keep(keeping, keeping.close)
            forks.disown_in_children(staging, folders, keeping)
            failed.pop_all()
        # A manager that is dropped without `close` must not leak its descriptors.
        self._release = weakref.finalize(self, belongings.let_go)
        keeping.settle_left(Deadline(options.lock_timeout))

    def is_usable(self) -> bool:
        """Whether nothing is known against it, this is the process that opened it, and its
        descriptors are its own still."""
        mine = self._belongings
        if self.spoilt or mine.over or mine.process is not forks.Known.process:
            return False
        for one in mine.witnesses:
            fd, inode = one.witness
            if self._disk.inode_behind(fd) != inode and not one.has_descriptors():
                return False
        return True

    def let_go(self) -> None:
        """After a call of this thread failed, wherever: let go of all locks that the thread has.
        May be cut off, and called again."""
        try:
            self._records.journal.let_go()
        except sqlite3.Error as error:
            logger.warning("A connection to the journal could not be closed: %s", error)
        self._locks.let_go()
        for part in (self._staging, self._folders, self._housekeeping):
            part.let_go()

    def abandon(self) -> None:
        """Let go of everything without waiting for anybody.  May be cut off, and called again."""
        self._release.detach()
        self._belongings.let_go()

    def close(self) -> None:
        """Let go of everything, waiting for the journal lock.  No call is inside."""
        if self._belongings.are_ours():
            self._records.close()
        self._release()

    # --- the protocol ------------------------------------------------------------------------

    def deadline(self, timeout: float) -> Call:
        """What bounds the waiting of one call, with the other facts of it."""
        return Call(timeout, self._clock)

    def store_segment(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        """Take one message of a transfer."""
        answer = self._answer_with_room(request, deadline)
        keeping = self._housekeeping
        if keeping.is_behind or self._clock.now().ticks >= keeping.due:
            keeping.after_answer(request.file_id, deadline)
        return answer

    def cancel(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        """Drop an unfinished transfer."""
        return self._answer_with_room(request, deadline)

    def _answer_with_room(
        self, request: SegmentRequest, deadline: Deadline
    ) -> FileStoreSegmentResult:
        """Where there is no space, drop what is over and do it again: what failed left its transfer
        as it was, or as its repeat finds it."""
        try:
            return self._answer(request, deadline)
        except (OSError, LimitError) as error:
            if not wants_room(error):
                raise
            self._crowded = True
            if not self._housekeeping.make_room(request.file_id, deadline):
                raise
            answer = self._answer(request, deadline)
            if request.cancel and answer.segments_received == 0:
                raise  # perhaps it was dropped before the error: nobody knows any more how much
        return answer

    def _answer(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        assert isinstance(deadline, Call)
        lock = self._locks.transfer(request.file_id)
        lock.acquire(deadline)
        try:
            if request.cancel:
                lock.begin_turn()
            call = deadline.begin(lock.turn)
            answer = (self._cancel if request.cancel else self._take)(request, call)
            lock.check_in_place()  # or somebody else may have held "the same" one
        finally:
            lock.release()
        return answer

    def _take(self, request: SegmentRequest, call: Call) -> FileStoreSegmentResult:
        """A segment, the last or not; the transfer's lock is held."""
        if self._level.keeps_files and not self._home.is_durable:
            self._home.make_durable()
        found = self._take_up(request.file_id, request.store, call)
        if found is None:
            return self._carry_out(request, None, call)
        row, staged = found
        if (
            staged.own_from > row.durable_offset
            and request.number in (row.segments, row.segments + 1)
            and self._appender.will_flush(row, request)
        ):
            found = self._recovery.make_own(row, staged, call)
            if found is None:
                return self._carry_out(request, None, call)
            row, staged = found
        if request.store is not None and request.number == row.segments + 1:
            row, staged = self._recovery.make_publishable(row, staged, call)
        with staged:
            return self._carry_out(request, (row, staged), call)

    def _take_up(
        self, file_id: str, wanted: FileClaim | None, call: Call
    ) -> tuple[Transfer, StagedFile] | None:
        """A transfer whose staged bytes can be built on, if there is one."""
        # While the turn is the same, what an earlier call recorded is current.
        kept = self._in_hand.take(file_id, call.turn)
        return kept or self._recovery.take_up(file_id, wanted, call)

    def _carry_out(
        self,
        request: SegmentRequest,
        found: tuple[Transfer, StagedFile] | None,
        call: Call,
    ) -> FileStoreSegmentResult:
        """Do what the rules say.

        :param found: the open transfer, if there is one
        """
        had = (found[0].segments, found[0].offset) if found else (0, 0)
        known, step = self._decide(request, found, Known(*had, taken=self._taken), call)
        if isinstance(step, Refusal):
            raise self._refused(step, found, call)
        if step is Step.ANSWER:
            return _stored(request)
        if step in (Step.BEGIN, Step.APPEND):
            self._check_early(request, found)
        if found is None:
            if step is Step.BEGIN:
                self._appender.begin(request, self._quota(request, 0), call)
                return FileStoreSegmentResult(request.file_id, 1)
        elif step is Step.APPEND:
            quota = self._quota(request, found[0].segments)
            self._appender.append(*found, request, quota, call)
            return FileStoreSegmentResult(request.file_id, request.number)
        elif step is Step.ACKNOWLEDGE:
            self._appender.repeat(*found, call)
            return FileStoreSegmentResult(request.file_id, request.number)
        assert request.store is not None

        def decide_taken(taken: bool) -> Step | Refusal | Fact:
            return self._decide(request, found, known._replace(taken=taken), call)[1]

        self._ending.end(step, request, request.store, found, decide_taken, call)
        return _stored(request)

    def _refused(
        self, step: Refusal, found: tuple[Transfer, StagedFile] | None, call: Call
    ) -> RequestError:
        if step.ends and found is not None:
            self._transfers.drop(found[0], call)
        return step.error

    def _decide(
        self,
        request: SegmentRequest,
        found: tuple[Transfer, StagedFile] | None,
        known: Known,
        call: Call,
    ) -> tuple[Known, Step | Refusal | Fact]:
        """Ask the rules, and find out what they want to know; but not whether the name is taken."""
        while isinstance(step := decide(request, known, self._limits), Fact):
            if step is Fact.TAKEN:
                break
            if step is Fact.SAME:
                assert found is not None
                known = known._replace(same=self._appender.is_same(*found, request))
            elif step is Fact.CONTENT:
                known = known._replace(content=_content(request, found))
            elif step is Fact.SPACE:
                known = known._replace(space=self._staging.space())
            elif step is Fact.USAGE:
                known = known._replace(usage=self._usage(request, known.segments, call))
            else:
                assert request.store is not None
                answered = self._repeats.secure(request, request.store, call)
                known = known._replace(answered=answered)
        return known, step

    def _usage(self, request: SegmentRequest, segments: int, call: Call) -> Usage:
        """What all unfinished transfers have; of a later segment only where there was no place for
        the last one, so that what will be refused is not written first.  The statement that
        records a segment looks in any case."""
        if segments and not self._crowded:
            return Usage(0, 0)
        quota = self._quota(request, segments)
        assert quota is not None
        usage = self._records.usage(quota, call)
        self._crowded = quota.refusal(usage) is not None
        return usage

    def _quota(self, request: SegmentRequest, segments: int) -> Quota | None:
        if self._limits is None:
            return None
        return Quota.of(self._limits, request, segments)

    def _check_early(
        self, request: SegmentRequest, found: tuple[Transfer, StagedFile] | None
    ) -> None:
        """:raises NameRefusedError: a plain segment names a file that nothing can be stored as"""
        if found is None:
            self._publisher.check_early(request)
        elif request.path != found[1].checked_path:
            self._publisher.check_early(request)
            found[1].checked_path = request.path

    def _cancel(self, request: SegmentRequest, call: Call) -> FileStoreSegmentResult:
        if self._level.keeps_files:
            self._home.make_durable()
        row = self._records.find(request.file_id, call)
        if row is not None and row.publish_place is not None:
            self._intents.withdraw_unless_renamed(row, call)
            # Where the file was there already, its transfer is finished: nothing is dropped then.
            row = self._records.find(request.file_id, call)
        segments = row.segments if row is not None else 0
        if row is not None:
            event = Event.dropped("cancelled", row, call.at, request.sender)
            if not self._transfers.drop(row, call, event):
                raise self._transfers.taken_over(row)
            logger.info("Transfer %r was cancelled at segment %d", row.file_id, row.segments)
        elif self._level.keeps_files:
            # There is nothing to drop (any more), but who dropped it may not have flushed.
            self._records.flush(call)
        else:
            self._records.check_in_place(call)
        return FileStoreSegmentResult(request.file_id, segments, FileStoreResultProp.CANCEL)

    # --- looking, and ends -------------------------------------------------------------------

    def transfers(self, prefix: str, deadline: Deadline) -> list[TransferStatus]:
        """The unfinished transfers whose ids begin with a text, oldest first."""
        return [status.of_transfer(row) for row in self._records.transfers(prefix, deadline)]

    def count_transfers(self, deadline: Deadline) -> int:
        """How many unfinished transfers there are."""
        return self._records.count(deadline)

    def totals(self, deadline: Deadline) -> Totals:
        """What there is in all."""
        behind = [one.behind for one in self.events.consumers(deadline)]
        transfers, wall = self._records.totals(deadline), self._clock.now().wall
        return status.of_all(transfers, behind, wall, self._staging.space().free)

    def status(self, file_id: str, deadline: Deadline) -> TransferStatus | None:
        """One transfer, settled first."""
        assert isinstance(deadline, Call)
        with self._locks.transfer(file_id).held(deadline) as lock:
            call = deadline.begin(lock.turn)
            found = self._take_up(file_id, None, call)
            if found is not None:
                row, staged = found
                with staged:
                    return status.of_transfer(row, staged.hasher_at(row))
            done = self._records.completions(file_id, deadline)
            if not done or not self._repeats.remembers(*done[0], call):
                return None
        return status.of_completion(done[0][1])

    def stored(self, after: str | None, limit: int, deadline: Deadline) -> list[StoredFile]:
        """Some stored files, folder by folder."""
        return list(self._files(deadline).files(after, limit))

    def open_stored(self, name: str, deadline: Deadline) -> OpenedFile:
        """A stored file, for reading."""
        return self._files(deadline).open(name)

    def _files(self, deadline: Deadline) -> StoredFiles:
        def known(name: str, found: os.stat_result) -> str | None:
            return self.stored_sha256(self.names.normalise(name, None), found, deadline)

        return StoredFiles(self.storage_dir, self.working_dir, known)

    def stored_sha256(self, path: str, found: os.stat_result, deadline: Deadline) -> str | None:
        """The hash of a stored file, as far as it is known without reading the file."""
        done = self._stored.at(os.fsencode(path), deadline)
        if done is None:
            return None
        published = (done.inode, done.size, done.mtime_ns)
        same = published == (found.st_ino, found.st_size, found.st_mtime_ns)
        kept = done.durable or (not self._level.keeps_files and self._home.is_this_boot(done.boot))
        return done.sha256.hex() if same and kept else None

    def catalogue(self, after: str, limit: int, deadline: Deadline) -> Page:
        """Some of what was stored and is there still, in the order of the places."""
        return status.page_of(self._stored.after(os.fsencode(after), limit, deadline), limit)

    def expire(self, deadline: Deadline) -> list[str]:
        """Drop all transfers whose time has passed; their ids."""
        return self._housekeeping.expire(deadline)

    def port(self, timeout: float) -> LocalPort:
        """For who moves the store.

        :param timeout: seconds that each step may wait
        """
        parts = self._home, self._locks, self._records, self._told, self._staging, self._transfers
        more = self._places, self._folders, self._publisher, self._published, self._intents
        return LocalPort(self, *parts, *more, self._stored, self._take_up, timeout)

    def mend(self, found: Finding, deadline: Deadline) -> bool:
        """Mend what a check found."""
        # Made here: kept, it would keep the engine, which nothing but the collector would end then.
        parts = self._home, self._locks.journal, self._staging, self._records
        repair = Repair(*parts, self._housekeeping, self.status)
        return repair.mend(found, Call.within(deadline, self._clock))


def _content(
    request: SegmentRequest, found: tuple[Transfer, StagedFile] | None
) -> tuple[int, bytes]:
    """Size and SHA-256 of all recorded bytes with the request's at their end."""
    if found is None:
        return len(request.payload), hashlib.sha256(request.payload).digest()
    row, staged = found
    hasher = staged.hasher_at(row).copy()
    hasher.update(request.payload)
    return hasher.total, hasher.digest()


def _stored(request: SegmentRequest) -> FileStoreSegmentResult:
    return FileStoreSegmentResult(request.file_id, request.number, FileStoreResultProp.STORE)
