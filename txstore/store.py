"""``FileStoreManager``: stores files that arrive in segments, and loses none it acknowledged.

It is a façade.  It checks options and requests, and gives each call to the engine that is open in
this process.  An engine that cannot be used any more (after a fork, say) is opened anew.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn, TypeVar, overload

from txstore.checks import Finding
from txstore.cluster.addresses import ServerURL, is_cluster
from txstore.cluster.servers import Servers
from txstore.deadline import Deadline
from txstore.engine import Engine
from txstore.errors import (
    LockTimeoutError,
    MissingExtraError,
    StoreClosedError,
    StoreNotPicklableError,
)
from txstore.events.feed import Consuming, Delivery, Feed, Look
from txstore.inspection import StoreInspector
from txstore.limits import Limits
from txstore.local.engine import LocalEngine, Options
from txstore.local.files.disk import Disk
from txstore.metrics import Metrics, observed
from txstore.options import (
    Durability,
    Level,
    OnExists,
    consumer_name,
    count,
    file_mode,
    flag,
    replaces,
    seconds,
)
from txstore.process import forks, threads
from txstore.process.calls import Calls
from txstore.process.strikes import is_strike
from txstore.protocol.catalogue import CatalogueEntry, Page
from txstore.protocol.event import Consumer, Event
from txstore.protocol.request import (
    FileStoreSegmentResult,
    Message,
    SegmentRequest,
    parse,
    require_file_id,
)
from txstore.protocol.status import Totals, TransferStatus
from txstore.protocol.stored import OpenedFile, StoredFile

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self  # which comes with SQLAlchemy

__all__ = ["FileStoreManager", "FileStoreSegmentResult", "Totals", "TransferStatus"]

T = TypeVar("T")

#: Stored files, or entries of the catalogue, that are listed in one call.
_PAGE = 1000

DAY = 86400.0


class FileStoreManager:
    """Stores files that arrive in segments, below a storage dir.

    Thread-safe and process-safe: any number of threads, processes and managers may use one pair of
    folders at once, and any of them may take the next segment of any transfer.  A manager may be
    used on both sides of a fork, and after all descriptors were closed: it opens anew then.  It
    cannot be pickled.  ``with`` closes it at the end.

    :param storage_dir: folder below which files are stored; made if missing.  Over many hosts
        ``"s3://bucket/prefix"``
    :param working_dir: ``"postgresql://..."`` then; otherwise folder for unfinished transfers and
        the journal; made if missing.  By default ``<storage_dir>/.workdir``
    :param durability: what survives a power loss: ``"segment"`` (every acknowledged segment),
        ``"file"`` (every acknowledged ``store`` and ``cancel``), or ``"none"`` (nothing; for tests
        and scratch data).  A crash of the process takes nothing acknowledged, at any level
    :param expire_after: seconds without activity after which an unfinished transfer is dropped
    :param keep_completed: seconds for which a repeated last message gets its first answer again
    :param keep_events: seconds for which an event is kept at least, if no more than ``max_events``
        come; longer, as long as a consumer is not done with it
    :param max_events: how many events are kept at most, whoever has not seen them
    :param lock_timeout: seconds that all waiting of one call may take together
    :param mode: permission bits of the store's own files; ``0o660`` lets a group share the store
    :param allow_network_fs: accept a working dir on a network file system; the caller promises
        that only one machine ever uses it
    :param limits: what is taken at most; by default nothing is limited
    :param on_exists: what becomes of a last message whose name is taken, exactly against any number
        of workers: ``"replace"`` (the file is replaced), or ``"refuse"`` (``NameTakenError``; the
        transfer is kept, for another name or a cancel)
    :param catalogue: whether name, size, SHA-256 and time of what is stored are kept for as long as
        the file is there; otherwise for ``keep_completed``
    :param auto_migrate: whether an older journal is upgraded, and tables are made in PostgreSQL,
        by whoever opens it; otherwise it is refused, with the command that does that
    :param disk: the operating system's calls, or those to the two servers; tests pass their own
    :param metrics: hears of what is done and how long it takes; by default nobody does
    :ivar storage_dir: absolute path of the storage dir, or its URL
    :ivar working_dir: absolute path of the working dir, or its URL without a password
    :raises OptionError: an option cannot have that value (a ``ValueError``)
    :raises StoreMismatchError: the two folders do not belong together (a ``ValueError``)
    :raises PermissionError: a folder cannot be made for lack of permission
    :raises NotADirectoryError: a path is a file
    :raises NetworkFileSystemError: the working dir is on a network file system (an ``OSError``)
    :raises UnfitFileSystemError: the file system lacks a call that the promises rest on
    :raises PathTooLongError: SQLite cannot open paths as long as the working dir's (an ``OSError``)
    :raises UnsupportedPlatformError: this is no POSIX system (an ``OSError``)
    :raises MissingExtraError: the libraries for two servers are not installed (an ``ImportError``)
    :raises ObjectStoreError: the object store cannot be used (an ``OSError``)
    :raises JournalError: SQLite cannot open the journal (an ``OSError``)
    :raises JournalDamagedError: the journal is damaged; nothing was changed
    :raises JournalVersionError: a newer txstore wrote the journal; nothing was changed
    :raises JournalOutdatedError: an older one did, and ``auto_migrate`` is ``False``; likewise
    :raises UnfitServerError: PostgreSQL does not keep what it confirms (an ``OSError``)
    :raises StoreMovedError: the store was moved by ``txstore migrate``; likewise
    :raises JournalLinkedError: the journal has a second name and may be in use; likewise
    :raises LockTimeoutError: others were busy with the store for longer than ``lock_timeout``
    """

    def __init__(
        self,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None = None,
        *,
        durability: Level = "segment",
        expire_after: float = 7 * DAY,
        keep_completed: float = DAY,
        keep_events: float = 7 * DAY,
        max_events: int = 1_000_000,
        lock_timeout: float = 30.0,
        mode: int = 0o600,
        allow_network_fs: bool = False,
        limits: Limits | None = None,
        on_exists: OnExists = "replace",
        catalogue: bool = True,
        auto_migrate: bool = True,
        disk: Disk | Servers | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        if is_cluster(storage_dir, working_dir) and working_dir is not None:
            working_dir = ServerURL(os.fspath(working_dir))
        self._lock_timeout = seconds("lock_timeout", lock_timeout)
        options = Options(
            storage_dir,
            working_dir,
            Durability.of(durability),
            self._lock_timeout,
            seconds("expire_after", expire_after),
            seconds("keep_completed", keep_completed),
            seconds("keep_events", keep_events),
            count("max_events", max_events),
            file_mode(mode),
            allow_network_fs,
            limits or Limits(),
            replaces(on_exists),
            flag("catalogue", catalogue),
            flag("auto_migrate", auto_migrate),
            disk if isinstance(disk, Disk) else Disk(),
            metrics,
        )
        self._metrics = metrics
        self._servers = disk if isinstance(disk, Servers) else None
        self._closed = False
        self._engine: Engine = _open(options, self._servers)
        engine = self._engine
        # Plain attributes: subclasses made for upstream's class set ones of these names.
        self.storage_dir, self.working_dir = engine.storage_dir, engine.working_dir
        # Absolute ones, since a daemon changes its folder.
        if not isinstance(working_dir, ServerURL):
            options = options._replace(
                storage_dir=engine.storage_dir, working_dir=engine.working_dir
            )
        self._options = options
        self._rules = engine.names
        self._calls: Calls[Engine] = Calls()

    @staticmethod
    def inspect(
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None = None,
        *,
        lock_timeout: float = 30.0,
        disk: Disk | Servers | None = None,
    ) -> StoreInspector:
        """Look at a store that is there, without writing a byte: see ``StoreInspector``."""
        return StoreInspector(storage_dir, working_dir, lock_timeout=lock_timeout, disk=disk)

    # --- the protocol ------------------------------------------------------------------------

    def store_segment(self, message: Message) -> FileStoreSegmentResult:
        """Take one message of a transfer.

        When this returns, what the message brought survives as the level says, and so does what
        the answer to a repeat rests on.

        :param message: any object with ``payload`` (bytes) and ``other_fields`` (a mapping), such
            as a ``dxlclient.message.Message``
        :raises RequestError: the message is refused (a ``ValueError``).  Nothing was changed,
            except that a ``FileMismatchError`` ends the transfer
        :raises LockTimeoutError: others were busy for longer than ``lock_timeout``
        :raises OSError: the disk failed.  The transfer is at its last acknowledged segment, and
            the same message can be sent again
        :raises StoreClosedError: the manager is closed
        """
        if self._metrics is not None:
            return observed(self._metrics, self._store_segment, message)
        return self._store_segment(message)

    def _store_segment(self, message: Message) -> FileStoreSegmentResult:
        request = parse(message, self._rules)
        return self._run(lambda engine, deadline: engine.store_segment(request, deadline))

    # --- looking ----------------------------------------------------------------------------

    def transfers(self, prefix: str = "") -> list[TransferStatus]:
        """The unfinished transfers, oldest first, as the journal has them.

        No staged byte is read, and nobody who works on a transfer is waited for.

        :param prefix: only transfers whose id begins with it; the others cost nothing
        """
        return self._run(lambda engine, deadline: engine.transfers(prefix, deadline))

    def count_transfers(self) -> int:
        """How many unfinished transfers there are.  Quicker than listing them."""
        return self._run(lambda engine, deadline: engine.count_transfers(deadline))

    def totals(self) -> Totals:
        """What the store has in all: unfinished transfers, events not seen, room on the disk.

        Quick enough to be asked every few seconds (some ms with 10,000 transfers).
        """
        return self._run(lambda engine, deadline: engine.totals(deadline))

    def status(self, file_id: str) -> TransferStatus | None:
        """One transfer.  What a crash left of it is settled first, so the answer can be built on.

        :return: ``None`` for one that is not known: never begun, cancelled, expired, or finished
            longer than ``keep_completed`` ago
        :raises FieldError: no transfer can have that id
        :raises LockTimeoutError: others worked on it for longer than ``lock_timeout``
        :raises StagingDamagedError: somebody removed or changed its staged bytes
        """
        require_file_id(file_id)
        return self._run(lambda engine, deadline: engine.status(file_id, deadline))

    def stored(self, after: str | None = None, limit: int | None = None) -> Iterator[StoredFile]:
        """The stored files, as they are found: those that come or go meanwhile may be left out.

        In two folders in the order of names, folder by folder; in an object store in the order of
        keys.  Symbolic links are not followed.

        :param after: the name after which to begin; it need not be there any more
        :param limit: how many at most
        """
        left = sys.maxsize if limit is None else limit
        while left > 0:
            most = min(left, _PAGE)
            page = self._page(after, most)
            yield from page
            if len(page) < most:
                return
            after, left = page[-1].name, left - most

    def _page(self, after: str | None, most: int) -> list[StoredFile]:
        return self._run(lambda engine, deadline: engine.stored(after, most, deadline))

    def open_stored(self, name: str) -> OpenedFile:
        """A stored file, open for reading; it stays that file when its name goes to another.

        :param name: the name it was stored under
        :return: ``.file`` has its bytes, and is to be closed
        :raises NameRefusedError: nothing is stored under such a name, or it leads out of the
            storage (a ``ValueError``)
        :raises FileNotFoundError: nothing is stored there
        :raises OSError: it cannot be opened, or is no file
        """
        return self._run(lambda engine, deadline: engine.open_stored(name, deadline))

    def stored_sha256(self, name: str, found: os.stat_result) -> str | None:
        """The hash of a stored file, as far as it is known without reading the file.

        :param name: its name in the storage
        :param found: what ``stat`` says of it now
        :return: lower-case hex.  ``None``: it is not known.  The file is not in the catalogue, was
            changed since it was stored (inode, size or time of modification), or is not as durable
            as the level asks for
        :raises NameRefusedError: nothing is stored under such a name
        """
        path = self._rules.normalise(name, None)
        return self._run(lambda engine, deadline: engine.stored_sha256(path, found, deadline))

    def catalogue(self, after: str = "") -> Iterator[CatalogueEntry]:
        """What was stored and is there still, in the order of the names: name, size, SHA-256, time.

        Nothing is read of the files, and other programs may have removed or changed some since:
        ``inspect(...).verify()`` reads them.  What is stored meanwhile may be left out.

        :param after: ``key`` of the entry after which to begin
        """
        here: str | None = after
        while here is not None:
            entries, here = self._run(partial(_page, here))
            yield from entries

    def cancel(self, file_id: str) -> FileStoreSegmentResult:
        """Drop an unfinished transfer, as a ``cancel`` message does.

        When this returns it stays dropped, also after a power loss (not at level ``"none"``).  A
        stored file is not touched.

        :return: ``segments_received`` says how many segments were dropped; 0: no such transfer
        :raises FieldError: no transfer can have that id
        :raises LockTimeoutError: others worked on it for longer than ``lock_timeout``
        """
        request = SegmentRequest(require_file_id(file_id), 0, b"", cancel=True)
        return self._run(lambda engine, deadline: engine.cancel(request, deadline))

    # --- events ------------------------------------------------------------------------------

    @overload
    def events(self, consumer: str, *, follow: bool = False) -> Feed[Delivery]: ...

    @overload
    def events(self, consumer: None = None, *, follow: bool = False) -> Feed[Event]: ...

    def events(
        self, consumer: str | None = None, *, follow: bool = False
    ) -> Feed[Delivery] | Feed[Event]:
        """What became of transfers, in the order in which they ended: stored, cancelled, expired.

        A consumer gets every event that is kept and that it is not ``done()`` with, each at least
        once, whatever crashes::

            for event in store.events(consumer="index"):
                add_to_index(event.name)
                event.done()

        A new consumer is registered with the first event that it asks for, and begins with the
        oldest that is kept.  One process at a time has its turn under a name; others wait, and go
        on from the first event that is not done with when it ends its iteration or dies.

        What is told is durable, except at level ``"none"``, and its number is never another's.

        :param consumer: its name.  ``None``: all events that are kept are shown; nobody is waited
            for, and nothing is recorded of that
        :param follow: whether to wait for more at the end
        :return: an iterator, to be used by one thread; ``stop()`` ends it from another
        :raises OptionError: no consumer can have that name (a ``ValueError``)

        While iterating also, from the iterator:

        :raises LockTimeoutError: without ``follow``: somebody else had the consumer's turn for
            longer than ``lock_timeout``
        :raises StoreClosedError: the manager was closed
        """
        if consumer is None:
            return Look(self._run, follow=follow)
        return Consuming(
            self._run,
            consumer_name(consumer),
            follow=follow,
            patience=self._lock_timeout,
            where=self.working_dir,
        )

    def consumers(self) -> list[Consumer]:
        """The registered consumers of events, by name, and how far each is."""
        return self._run(lambda engine, deadline: engine.events.consumers(deadline))

    def remove_consumer(self, name: str) -> bool:
        """Forget a consumer: no event is kept for it any more, and under that name another begins.

        Durable on return, except at level ``"none"``.

        :return: ``False``: there is no consumer of that name
        """
        return self._run(lambda engine, deadline: engine.events.remove_consumer(name, deadline))

    # --- ends --------------------------------------------------------------------------------

    def expire(self) -> list[str]:
        """Drop all transfers without activity for ``expire_after``, forget what was finished longer
        than ``keep_completed`` ago, and events that need not be kept.

        It also happens by itself, bit by bit, after answers.  A transfer that somebody works on is
        left alone, and not waited for.

        :return: ids of the transfers that were dropped
        :raises ReplacedError: the store was removed or replaced meanwhile (an ``OSError``)
        """
        return self._run(lambda engine, deadline: engine.expire(deadline))

    def repair(self, found: Finding) -> bool:
        """Mend what ``inspect(...).check()`` found, under the locks that a worker takes.  Nothing
        acknowledged is lost by it.  What has ``mend`` is worth a call.

        :return: whether it is mended; ``False``: that cannot be, or somebody is busy with it
        :raises OSError: the disk failed; nothing acknowledged is lost
        """
        return self._run(lambda engine, deadline: engine.mend(found, deadline))

    def close(self) -> None:
        """Wait for calls in flight, then let go of everything.

        Unfinished transfers stay, for any manager to go on with.  May be called more than once.  In
        the middle of a call (by a signal handler) it cannot wait: that call goes on, and closes at
        its end.
        """
        forks.here()
        self._closed, me = True, threading.get_ident()
        if me in self._calls.inside:
            # What that call still uses must be its own, and not the next file's descriptors.
            self._calls.to_close.add(me)
            return
        try:
            self._calls.wait()
            self._engine.close()
        except BaseException:  # struck in the middle
            self._calls.let_go()
            self._engine.let_go()
            self._engine.abandon()
            raise

    def __reduce__(self) -> NoReturn:
        raise StoreNotPicklableError

    def __enter__(self) -> Self:
        if self._closed:
            raise StoreClosedError
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- calls -------------------------------------------------------------------------------

    def _run(self, work: Callable[[Engine, Deadline], T]) -> T:
        """Make a call with what is open in this process."""
        if os.getpid() != forks.Known.process.pid:
            forks.here()
        calls, me = self._calls, threading.get_ident()
        outer, engine = calls.inside.get(me), None
        # Whatever strikes wherever, a Ctrl-C in the middle of letting go too: what this call took
        # is let go of, in the inner layer or in the outer one.
        try:
            try:
                engine, deadline = self._enter()
                return work(engine, deadline)
            except BaseException as error:
                self._failed(engine, outer, error)
                raise
            finally:
                if outer is None:
                    calls.inside.pop(me, None)
                # Looked at after leaving: who waits looks at who is inside after this is set.
                if outer is not None or calls.waited_for:
                    calls.leave(outer)
                if engine is not None and engine.spoilt:
                    self._retire(engine)
                if calls.to_close:
                    self._close_after_call(outer)
        except BaseException as error:
            if is_strike(error):
                self._failed(engine, outer, error)
                calls.leave(outer)
                if engine is not None:
                    self._retire(engine)
                self._close_after_call(outer)
            raise

    def _close_after_call(self, outer: Engine | None) -> None:
        """Do what ``close`` was asked for in the middle of the call that is over."""
        me = threading.get_ident()
        if outer is None and me in self._calls.to_close:
            self._calls.to_close.discard(me)
            self.close()

    def _failed(self, engine: Engine | None, outer: Engine | None, error: BaseException) -> None:
        """Let go of what a call took."""
        if engine is not None and is_strike(error):
            engine.spoilt = True
        if outer is not None:
            return  # this call was made in the middle of another, which still needs what it took
        self._calls.let_go()
        if engine is not None:
            engine.let_go()

    def _retire(self, engine: Engine) -> None:
        """Close what a call was cut off in, when nobody uses it any more; the next call opens
        anew, and so trusts nothing that was kept in memory."""
        if not self._calls.are_using(engine):
            engine.let_go()
            engine.abandon()

    def _enter(self) -> tuple[Engine, Deadline]:
        """The engine that is open in this process, and what bounds this call.

        :raises StoreClosedError: the manager is closed
        """
        deadline = None
        while True:
            engine = self._engine
            self._calls.inside[threading.get_ident()] = engine
            # Looked at after entering: who closes looks at who entered after this is set.
            if self._closed:
                raise StoreClosedError
            if engine.is_usable():
                left = self._lock_timeout if deadline is None else deadline.left()
                return engine, engine.deadline(left)
            deadline = deadline or Deadline(self._lock_timeout)
            self._open_anew(engine, deadline)

    def _open_anew(self, old: Engine, deadline: Deadline) -> None:
        """In a forked child, after the descriptors were closed, or after a call was cut off."""
        if not threads.acquire(self._calls.opening, deadline.left()):
            raise LockTimeoutError(self.working_dir, deadline.timeout)
        try:
            if self._engine is old:
                self._engine = _open(
                    self._options._replace(lock_timeout=deadline.left()), self._servers
                )
        finally:
            self._calls.opening.release()


def _page(after: str, engine: Engine, deadline: Deadline) -> Page:
    return engine.catalogue(after, _PAGE, deadline)


def _open(options: Options, servers: Servers | None) -> Engine:
    """Open the engine for what the options name: two folders, or two servers."""
    if sys.is_finalizing():  # a finalizer asks, after the exit handlers: nothing can be opened
        raise StoreClosedError
    if not isinstance(options.working_dir, ServerURL):
        return LocalEngine(options)
    try:
        from txstore.cluster.engine import ClusterEngine
    except ModuleNotFoundError as error:
        raise MissingExtraError("cluster", "A store over PostgreSQL and an object store") from error
    return ClusterEngine(options, servers)
