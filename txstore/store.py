"""``FileStoreManager``: stores files that arrive in segments, and loses none it acknowledged.

The conductor.  It reads like the protocol; how bytes are staged, published, recovered, locked and
recorded is said in the modules of those names, and why in ``docs/design.md``.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from txstore import forks, status
from txstore.append import Appender
from txstore.calls import Calls
from txstore.clock import Moment
from txstore.constants import FileStoreResultProp
from txstore.disk import Disk
from txstore.home import Home
from txstore.housekeeping import Housekeeping
from txstore.intents import Intents
from txstore.journal.rows import Transfer
from txstore.journal.upgrade import open_records
from txstore.limits import Limits
from txstore.locks import Deadline, Locks, TransferLock
from txstore.options import Durability, file_mode, seconds
from txstore.paths import NameRules, Place, Places, place_bytes
from txstore.publish import Publisher
from txstore.recovery import Recovery
from txstore.repeats import Repeats
from txstore.result import FileStoreSegmentResult
from txstore.segment import FileClaim, Message, SegmentRequest, parse, require_file_id
from txstore.staged import StagedFile
from txstore.staging import Staging
from txstore.status import TransferStatus
from txstore.transfers import Transfers

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self  # which comes with SQLAlchemy

__all__ = ["FileStoreManager", "FileStoreSegmentResult", "TransferStatus"]

logger = logging.getLogger(__name__)

DAY = 86400.0


class FileStoreManager:
    """Stores files that arrive in segments under a storage dir.

    Any number of threads, processes and managers may use one pair of folders at once; any of them
    may take the next segment of any transfer.  A manager may be used on both sides of a fork.

    :param storage_dir: folder under which files are stored; made if missing
    :param working_dir: folder for unfinished transfers and the journal; made if missing; the
        default is ``<storage_dir>/.workdir``
    :param durability: what survives a power loss: ``"segment"`` (every acknowledged segment),
        ``"file"`` (every acknowledged ``store`` and ``cancel``), ``"none"`` (nothing; for tests
        and scratch data).  A process crash takes nothing acknowledged at any level
    :param expire_after: seconds without activity after which an unfinished transfer is dropped
    :param keep_completed: seconds for which a repeated last message gets its first answer again
    :param lock_timeout: seconds that all waiting of one call may take together
    :param mode: permission bits of the store's own files; ``0o660`` lets a group share the store
    :param allow_network_fs: use a working dir on a network file system all the same, on the
        caller's word that only one machine ever does
    :param limits: what is taken at most; nothing is limited by default
    :param disk: the operating system's calls; tests pass their own
    :ivar storage_dir: absolute path of the storage dir
    :ivar working_dir: absolute path of the working dir
    :raises OptionError: an option cannot have that value (a ``ValueError``)
    :raises StoreMismatchError: the two folders do not belong together (a ``ValueError``)
    :raises PermissionError: a folder cannot be made for lack of permission
    :raises NotADirectoryError: a path is a file
    :raises NetworkFileSystemError: the working dir is on a network file system (an ``OSError``)
    :raises UnsupportedPlatformError: this is no POSIX system (an ``OSError``)
    :raises JournalError: SQLite cannot open the journal
    :raises JournalDamagedError: the journal is damaged; nothing was changed
    :raises JournalVersionError: a newer txstore wrote the journal; nothing was changed
    """

    def __init__(
        self,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None = None,
        *,
        durability: str = "segment",
        expire_after: float = 7 * DAY,
        keep_completed: float = DAY,
        lock_timeout: float = 30.0,
        mode: int = 0o600,
        allow_network_fs: bool = False,
        limits: Limits | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._level = level = Durability.of(durability)
        self._lock_timeout = seconds("lock_timeout", lock_timeout)
        self._limits = limits or Limits()
        expire_after = seconds("expire_after", expire_after)
        keep_completed = seconds("keep_completed", keep_completed)
        with ExitStack() as made:
            self._home = home = Home(
                disk or Disk(),
                storage_dir,
                working_dir,
                mode=file_mode(mode),
                allow_network_fs=allow_network_fs,
            )
            made.callback(home.close)
            # Plain attributes: subclasses made for upstream's class set ones of these names.
            self.storage_dir, self.working_dir = home.storage_dir, home.working_dir
            self._locks = locks = Locks(home.disk, home.locks_path, home.locks, home.mode)
            made.callback(locks.close)
            forks.forget(locks)  # before any is held: a child of another thread must not keep it
            self._records = records = open_records(home, locks.journal, self._lock_timeout)
            made.callback(records.abandon)
            places = Places(home.disk, home.storage_dir, home.storage, home.own_folders())
            self._calls = Calls()
            self._rules = NameRules(home.storage_dir, home.working_dir)
            self._staging = staging = Staging(home)
            made.callback(staging.close)
            self._transfers = transfers = Transfers(home, staging, records, level)
            self._publisher = publisher = Publisher(
                home, places, staging, records, transfers, level
            )
            made.callback(publisher.close)
            self._appender = Appender(staging, records, transfers, level)
            self._repeats = Repeats(home, records, publisher, level)
            self._intents = intents = Intents(
                home, locks, staging, records, transfers, publisher, level
            )
            self._recovery = Recovery(home, staging, records, transfers, intents)
            self._housekeeping = keeping = Housekeeping(
                home, locks, staging, records, transfers, intents, expire_after, keep_completed
            )
            made.callback(keeping.close)
            forks.forget(home, self._calls, staging, publisher, keeping)
            # A manager that is dropped without `close` must not leak its descriptors.
            self._release = weakref.finalize(self, made.pop_all().close)
        keeping.settle_left(Deadline(self._lock_timeout))

    # --- the protocol ------------------------------------------------------------------------

    def store_segment(self, message: Message) -> FileStoreSegmentResult:
        """Take one message of a transfer.  Thread-safe and process-safe.

        When this returns, what the message brought is kept as the level says; the answer to a
        repeat makes durable what it rests on.

        :param message: a ``dxlclient.message.Message``; only ``payload`` and ``other_fields`` are
            read
        :raises RequestError: the message is refused (a ``ValueError``); nothing was changed,
            except that ``FileMismatchError`` ends the transfer
        :raises LockTimeoutError: a lock was not had within ``lock_timeout``
        :raises OSError: the disk failed; the transfer is at its last acknowledged segment and the
            same message can be sent again
        :raises StoreClosedError: the manager is closed
        """
        request = parse(message, self._rules)
        with self._calls:
            deadline = Deadline(self._lock_timeout)
            try:
                answer = self._answer(request, deadline)
            except OSError as error:
                self._make_room(error, request.file_id, deadline)
                answer = self._answer(request, deadline)
            self._housekeeping.after_answer(request.file_id, deadline)
        return answer

    def _answer(self, request: SegmentRequest, deadline: Deadline) -> FileStoreSegmentResult:
        with self._locks.transfer(request.file_id, deadline) as lock:
            at = self._home.now()
            if request.cancel:
                lock.begin_turn()
                answer = self._cancel(request, at, deadline)
            else:
                answer = self._take(request, lock, at, deadline)
            lock.verify()
        return answer

    def _make_room(self, error: OSError, file_id: str, deadline: Deadline) -> None:
        """Where a call failed for lack of space, drop what is over, so that it can be made again:
        it left its transfer as it was, or as its repeat finds it.  Else the error is raised."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full or not self._housekeeping.make_room(file_id, deadline):
            raise error

    def _take(
        self, request: SegmentRequest, lock: TransferLock, at: Moment, deadline: Deadline
    ) -> FileStoreSegmentResult:
        """A segment, the last or not; the transfer's lock is held."""
        if self._level.keeps_files:
            self._home.make_durable()
        found = self._recovery.take_up(request.file_id, lock, request.store, at, deadline)
        if (
            found is not None
            and request.number in (found[0].segments, found[0].segments + 1)
            and self._appender.will_flush(found[0], request)
        ):
            found = self._recovery.make_own(*found, at, deadline)
        if found is None:
            return self._first(request, lock, at, deadline)
        row, staged = found
        if request.store is not None and request.number == row.segments + 1:
            row, staged = self._recovery.take_over(row, staged, at, deadline)
        with self._staging.lent(staged):
            if request.store is not None:
                return self._last(row, staged, request, request.store, at, deadline)
            if request.number == row.segments + 1:
                self._limits.check(request, row.offset)
                self._appender.append(row, staged, request, at, deadline)
            elif request.number == row.segments:
                self._appender.repeat(row, staged, request, at, deadline)
            else:
                raise request.out_of_turn(row.segments)
        return FileStoreSegmentResult(request.file_id, request.number)

    def _first(
        self, request: SegmentRequest, lock: TransferLock, at: Moment, deadline: Deadline
    ) -> FileStoreSegmentResult:
        """A message for an id of which no transfer is open."""
        if request.store is not None and self._repeats.answers(request, request.store, deadline):
            return _stored(request)
        if request.number != 1:
            raise request.out_of_turn(0)
        self._limits.check(request, 0)
        if request.store is None:
            self._appender.begin(request, lock, at, deadline)
            return FileStoreSegmentResult(request.file_id, 1)
        claim, sha256 = request.store, hashlib.sha256(request.payload).digest()
        if (len(request.payload), sha256) != (claim.size, claim.sha256):
            raise request.mismatch(claim, len(request.payload), sha256)
        with self._held(claim, request, at, deadline) as place:
            self._publisher.publish_whole(request, claim, place, at, deadline)
        return _stored(request)

    def _last(
        self,
        row: Transfer,
        staged: StagedFile,
        request: SegmentRequest,
        claim: FileClaim,
        at: Moment,
        deadline: Deadline,
    ) -> FileStoreSegmentResult:
        """A last message while a transfer with its id is open."""
        mismatch, refusal = None, None
        if request.number == row.segments + 1:
            refusal = self._limits.refusal(request, row.offset)
        if request.number == row.segments + 1 and refusal is None:
            hasher = staged.hasher_at(row).copy()
            hasher.update(request.payload)
            if (hasher.total, hasher.digest()) == (claim.size, claim.sha256):
                with self._held(claim, request, at, deadline) as place:
                    self._publisher.finish(row, staged, request, claim, place, at, deadline)
                return _stored(request)
            mismatch = request.mismatch(claim, hasher.total, hasher.digest())
        # It may belong to an earlier transfer with this id, whose answer was lost.
        if self._repeats.answers(request, claim, deadline):
            return _stored(request)
        if mismatch is not None:
            self._transfers.drop(row, deadline)
            raise mismatch
        raise refusal or request.out_of_turn(row.segments)

    @contextmanager
    def _held(
        self, claim: FileClaim, request: SegmentRequest, at: Moment, deadline: Deadline
    ) -> Iterator[Place]:
        """Where a file goes, its name lock held and nobody's intent left there."""
        place = self._publisher.resolve(claim, request.given_id)
        with self._locks.name(place_bytes(place), deadline) as lock:
            self._intents.settle_place(place, at, deadline)
            yield place
            lock.verify()

    def _cancel(
        self, request: SegmentRequest, at: Moment, deadline: Deadline
    ) -> FileStoreSegmentResult:
        if self._level.keeps_files:
            self._home.make_durable()
        row = self._records.find(request.file_id, deadline)
        if row is not None and row.publish_place is not None:
            self._intents.withdraw_unless_renamed(row, at, deadline)
            # Where the file was there already, its transfer is finished: nothing is dropped then.
            row = self._records.find(request.file_id, deadline)
        segments = row.segments if row is not None else 0
        if row is not None:
            if not self._transfers.drop(row, deadline):
                raise self._transfers.taken_over(row)
            logger.info("Transfer %r was cancelled at segment %d", row.file_id, row.segments)
        elif self._level.keeps_files:
            # There is nothing to drop (any more), but who dropped it may not have flushed.
            self._records.flush(deadline)
        else:
            self._records.verify(deadline)
        return FileStoreSegmentResult(request.file_id, segments, FileStoreResultProp.CANCEL)

    # --- looking, and ends -------------------------------------------------------------------

    def transfers(self, prefix: str = "") -> list[TransferStatus]:
        """The unfinished transfers, oldest first, as the journal has them.  Reads no staged byte
        and takes no transfer's lock.

        :param prefix: only those whose id begins with it; the others cost nothing
        """
        with self._calls:
            rows = self._records.transfers(prefix, Deadline(self._lock_timeout))
        return [status.of_transfer(row) for row in rows]

    def count_transfers(self) -> int:
        """How many unfinished transfers there are; listing them takes longer."""
        with self._calls:
            return self._records.count(Deadline(self._lock_timeout))

    def status(self, file_id: str) -> TransferStatus | None:
        """One transfer, settled first: what is told can be built on.  ``None``: not known (never
        begun, cancelled, expired, or finished longer than ``keep_completed`` ago).

        :raises FieldError: no transfer can have that id
        :raises LockTimeoutError: somebody works on the transfer for longer than ``lock_timeout``
        :raises StagingDamagedError: somebody removed or changed its staged bytes
        """
        require_file_id(file_id)
        with self._calls:
            deadline = Deadline(self._lock_timeout)
            with self._locks.transfer(file_id, deadline) as lock:
                at = self._home.now()
                found = self._recovery.take_up(file_id, lock, None, at, deadline)
                if found is not None:
                    row, staged = found
                    with self._staging.lent(staged):
                        return status.of_transfer(row, staged.hasher_at(row))
                done = self._records.completions(file_id, deadline)
                if not done or not self._repeats.remembers(*done[0], deadline):
                    return None
        return status.of_completion(done[0][1])

    def stored_sha256(self, name: str, found: os.stat_result) -> str | None:
        """The hash of a stored file, as far as it is known without reading the file.

        :param name: its name in the storage
        :param found: what ``stat`` says of it now
        :return: lower-case hex, from its completion while inode, size and time of change are
            those of the file that was published; else ``None``, also where a power loss may have
            taken bytes or, as the level says, could yet take them
        :raises NameRefusedError: nothing is stored under such a name
        """
        path = self._rules.normalise(name, None)
        with self._calls:
            latest = self._records.latest_at(os.fsencode(path), Deadline(self._lock_timeout))
        if latest is None:
            return None
        done = latest[1]
        published = (done.inode, done.size, done.mtime_ns)
        same = published == (found.st_ino, found.st_size, found.st_mtime_ns)
        kept = done.durable or (not self._level.keeps_files and self._home.is_this_boot(done.boot))
        return done.sha256.hex() if same and kept else None

    def cancel(self, file_id: str) -> FileStoreSegmentResult:
        """Drop an unfinished transfer, as a ``cancel`` message does.

        :raises FieldError: no transfer can have that id
        """
        request = SegmentRequest(require_file_id(file_id), 0, b"", cancel=True)
        with self._calls:
            deadline = Deadline(self._lock_timeout)
            try:
                return self._answer(request, deadline)
            except OSError as error:
                self._make_room(error, request.file_id, deadline)
                return self._answer(request, deadline)

    def expire(self) -> list[str]:
        """Drop all transfers without activity for ``expire_after``, and forget completions older
        than ``keep_completed``.  This happens by itself, a little after each answer.

        :return: ids of the transfers dropped
        :raises ReplacedError: the store was removed or replaced meanwhile (an ``OSError``)
        """
        with self._calls:
            return self._housekeeping.expire(Deadline(self._lock_timeout))

    def close(self) -> None:
        """Wait for calls in flight, then let go of everything.  Unfinished transfers stay, for any
        manager to go on with.  May be called more than once."""
        if self._calls.close():
            self._records.close()
            self._release()

    def __enter__(self) -> Self:
        with self._calls:
            return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _stored(request: SegmentRequest) -> FileStoreSegmentResult:
    return FileStoreSegmentResult(request.file_id, request.number, FileStoreResultProp.STORE)
