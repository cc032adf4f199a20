"""A store is moved: from two folders to servers, back, or from servers to others.

In this order, each step being done already where it is begun again::

    1 the target is made, and fenced: nobody works on it
    2 the source is fenced: nobody can record anything there any more
    3 the source is settled: what dead workers left is carried out, or withdrawn
    4 files, last messages, events, consumers, transfers are copied, and compared on the way
    5 the target's fence is lifted

So at every moment one of the two stores at most takes segments.  The source is never changed but
for its fence.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field

from txstore.cluster.addresses import ServerURL, is_cluster
from txstore.cluster.servers import Servers
from txstore.errors import (
    MigrationError,
    MissingExtraError,
    StagingDamagedError,
    StoreMovedError,
)
from txstore.inspection import StoreInspector
from txstore.limits import Limits
from txstore.local.engine import LocalEngine, Options
from txstore.local.files.disk import Disk
from txstore.options import Durability
from txstore.porting import Port, refusal
from txstore.protocol.moved import Fence
from txstore.protocol.names import DEFAULT_WORKING_DIR, NameRules
from txstore.protocol.stored import StoredFile

DAY = 86400.0
_NEEDS = "A store over PostgreSQL and an object store"
#: Rows, or names, at once.
_PAGE = 500
#: Names that an error tells.
_TOLD = 1000


@dataclass
class Amount:
    """How much there is of everything, or was moved.

    :ivar files: stored ones
    :ivar transfers: unfinished ones
    :ivar messages: last messages that a repeat is still answered from
    """

    files: int = 0
    file_bytes: int = 0
    transfers: int = 0
    transfer_bytes: int = 0
    messages: int = 0
    events: int = 0
    consumers: int = 0


@dataclass
class Report:
    """What a run did.

    :ivar there: what is in the target now
    :ivar copied: what this run copied of it
    :ivar damaged: ids of transfers that were left out, since their bytes are damaged
    :ivar was_finished: whether an earlier run had done all
    """

    there: Amount = field(default_factory=Amount)
    copied: Amount = field(default_factory=Amount)
    damaged: list[str] = field(default_factory=list)
    was_finished: bool = False

    def to_dict(self) -> dict[str, object]:
        """The same for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """Where a store is: two folders, or two URLs."""

    storage_dir: str
    working_dir: str | None

    @property
    def is_cluster(self) -> bool:
        """Whether it is over two servers."""
        return is_cluster(self.storage_dir, self.working_dir)


class Watcher:
    """Hears how it goes; by default nobody does."""

    def begin(self, amount: Amount) -> None:
        """So much is to be in the target in the end."""

    def turn(self, what: str) -> None:
        """A file, or a transfer, is looked at."""

    def came(self, size: int) -> None:
        """So many bytes of it are there, now or since an earlier run."""


class Migration:
    """Moves one store.  For one thread; may be stopped anywhere, and begun again.

    :param lock_timeout: seconds that each step may wait
    :param disk: the operating system's calls on the one side; tests pass their own
    :param servers: the calls to two servers; likewise
    :raises MigrationError: both are in two folders
    """

    def __init__(
        self,
        source: Place,
        target: Place,
        *,
        lock_timeout: float = 30.0,
        disk: Disk | None = None,
        servers: Servers | None = None,
    ) -> None:
        if not source.is_cluster and not target.is_cluster:
            raise MigrationError(
                "Both stores are in two folders. Stop its workers and copy the folders."
            )
        self._source, self._target, self._timeout = source, target, lock_timeout
        self._disk, self._servers = disk or Disk(), servers

    # --- before ------------------------------------------------------------------------------

    def plan(self) -> Amount:
        """What there is to be moved, of which all can be.  Changes nothing but what opening does.

        :raises MigrationError: there is no such store, or the target cannot carry some names
        :raises StoreMovedError: the source was moved to another store
        :raises OSError: one of them cannot be opened
        """
        with self._opened(self._source, new=False) as source:
            return self._look(source)

    def _rules_of_target(self) -> NameRules:
        if self._target.is_cluster:
            from txstore.cluster.addresses import read_bucket
            from txstore.cluster.keys import KeyRules

            return KeyRules(read_bucket(self._target.storage_dir))
        storage = os.path.abspath(self._target.storage_dir)
        working = self._target.working_dir or os.path.join(storage, DEFAULT_WORKING_DIR)
        return NameRules(storage, os.path.abspath(working))

    def _look(self, source: Port) -> Amount:
        rules = self._rules_of_target()
        bad = list(source.strange())
        amount = Amount()
        above: list[str] = []
        for file in _files(source):
            amount.files += 1
            amount.file_bytes += file.size
            reason = refusal(rules, file.name)
            # Only an object store has a file and a folder of one name, and there it comes first.
            while above and not file.name.startswith(above[-1]):
                above.pop()
            if any(file.name.startswith(f"{one}/") for one in above):
                reason = reason or "a folder in it is the name of a file, too"
            above.append(file.name)
            if reason is not None:
                bad.append((file.name, reason))
        if bad:
            raise MigrationError(
                f"{len(bad)} names in {source.storage_dir} cannot be moved. Rename or remove what"
                " has them, then run the same command again. Nothing was changed.",
                bad[:_TOLD],
            )
        for transfer in source.transfers():
            amount.transfers += 1
            amount.transfer_bytes += transfer.size
        amount.messages = source.count_messages()
        amount.consumers = len(source.consumers())
        after = 0
        while page := source.events(after, _PAGE):
            amount.events += len(page)
            after = page[-1].sequence
        return amount

    # --- moving ------------------------------------------------------------------------------

    def run(self, watcher: Watcher | None = None) -> Report:
        """Move it, or go on where an earlier run was stopped.  On return all of it is in the
        target, durably, and workers may be started there.

        :param watcher: hears how it goes
        :raises MigrationError: it cannot be moved; both stores are as they were
        :raises SourceDamagedError: a stored file is damaged; it goes on once that is mended
        :raises StoreMovedError: the source was moved to another store
        :raises OSError: a disk or a server failed; the next run goes on
        """
        with ExitStack() as stack:
            source = stack.enter_context(self._opened(self._source, new=False))
            if source.fence() is None:
                self._look(source)  # before anything is made
            target = stack.enter_context(self._opened(self._target, new=True))
            for port in (source, target):
                stack.enter_context(port.alone())
            return self._run(source, target, watcher or Watcher())

    def _run(self, source: Port, target: Port, watcher: Watcher) -> Report:
        here, there = _fences(source, target)
        fence, current, report = source.fence(), target.fence(), Report()
        if fence is not None and not fence.is_of(target) and fence[:3] != there[:3]:
            raise fence.error(source.working_dir)
        if current is None and fence is not None and fence.is_of(target):
            report.was_finished = True
            return report
        if current is None:
            target.raise_fence(here)
            if not target.is_empty():
                target.lift_fence()
                raise MigrationError(
                    f"The store at {target.storage_dir} is in use: a store is moved to an empty"
                    " place only. Nothing was changed."
                )
        elif current.way != "from" or not current.is_of(source):
            raise current.error(target.working_dir)
        if fence is None or not fence.is_of(target):  # or its target was removed
            source.raise_fence(there)
        report.damaged = source.settle()
        watcher.begin(self._look(source))  # what came in between, too
        self._copy_files(source, target, report, watcher)
        self._copy_messages(source, target, report)
        self._copy_events(source, target, report)
        self._copy_transfers(source, target, report, watcher)
        target.lift_fence()
        return report

    def undo(self) -> None:
        """Give up a move that is not finished: workers may go on with the source, and the target is
        not to be used any more.

        :raises MigrationError: it was finished, or never begun
        :raises OSError: a disk or a server failed; the next run goes on
        """
        with ExitStack() as stack:
            source = stack.enter_context(self._opened(self._source, new=False))
            target = stack.enter_context(self._opened(self._target, new=False))
            for port in (source, target):
                stack.enter_context(port.alone())
            here, _ = _fences(source, target)
            mine, its = source.fence(), target.fence()
            if mine is None or its is None or not mine.is_of(target) or not its.is_of(source):
                raise MigrationError(
                    f"No move from {source.storage_dir} to {target.storage_dir} is under way:"
                    " there is nothing to undo."
                )
            target.raise_fence(here._replace(way="to"))  # first: both must never be open
            source.lift_fence()

    def _copy_files(self, source: Port, target: Port, report: Report, watcher: Watcher) -> None:
        for found in _files(source):
            opened = source.open_stored(found.name)
            with closing(opened.file):
                tag = hashlib.sha256(repr((found.name, opened.identity)).encode()).hexdigest()[:32]
                watcher.turn(found.name)
                if not target.has(found.name, opened, tag):
                    target.take_file(found.name, opened, tag)
                    report.copied.files += 1
                    report.copied.file_bytes += opened.size
                report.there.files += 1
                report.there.file_bytes += opened.size
                watcher.came(opened.size)

    def _copy_messages(self, source: Port, target: Port, report: Report) -> None:
        had, seen, after = target.count_messages(), 0, 0
        while page := source.messages(after, _PAGE):
            after = page[-1][0]
            new = [one for _, one in page][max(had - seen, 0) :]
            if new:
                target.take_messages(max(had, seen), new)
            report.copied.messages += len(new)
            seen += len(page)
        report.there.messages = seen

    def _copy_events(self, source: Port, target: Port, report: Report) -> None:
        after = 0
        had = target.last_event()
        while page := source.events(after, _PAGE):
            after = page[-1].sequence
            new = [one for one in page if one.sequence > had]
            if new:
                target.take_events(had, new)
                had = after
            report.copied.events += len(new)
            report.there.events += len(page)
        consumers = source.consumers()
        target.take_consumers(consumers, source.last_event())
        report.there.consumers = report.copied.consumers = len(consumers)

    def _copy_transfers(self, source: Port, target: Port, report: Report, watcher: Watcher) -> None:
        had = {one.file_id for one in target.transfers()}
        for transfer in source.transfers():
            watcher.turn(transfer.file_id)
            if transfer.file_id not in had:
                try:
                    target.take_transfer(transfer, source.read(transfer))
                except StagingDamagedError as error:
                    if error.file_id != transfer.file_id:
                        raise
                    report.damaged.append(transfer.file_id)
                    continue
                report.copied.transfers += 1
                report.copied.transfer_bytes += transfer.size
            report.there.transfers += 1
            report.there.transfer_bytes += transfer.size
            watcher.came(transfer.size)

    # --- opening -----------------------------------------------------------------------------

    @contextmanager
    def _opened(self, place: Place, *, new: bool) -> Iterator[Port]:
        """One of the stores, for who moves it.

        :param new: whether it is made if it is not there
        """
        if not new:
            self._check_there(place)
        working: str | os.PathLike[str] | None = place.working_dir
        if place.is_cluster:
            working = ServerURL(str(place.working_dir))
        options = Options(
            storage_dir=place.storage_dir,
            working_dir=working,
            level=Durability.of("segment"),
            lock_timeout=self._timeout,
            expire_after=7 * DAY,
            keep_completed=DAY,
            keep_events=7 * DAY,
            max_events=1_000_000,
            mode=0o600,
            allow_network_fs=False,
            limits=Limits(),
            replaces=True,
            catalogue=True,
            auto_migrate=True,
            disk=self._disk,
            metrics=None,
        )
        if place.is_cluster:
            try:
                from txstore.cluster.engine import ClusterEngine
            except ModuleNotFoundError as error:
                raise MissingExtraError("cluster", _NEEDS) from error
            cluster = ClusterEngine(options, self._servers, moving=True)
            with closing(cluster):
                yield cluster.port(self._timeout)
        else:
            local = LocalEngine(options, moving=True)
            with closing(local):
                yield local.port(self._timeout)

    def _check_there(self, place: Place) -> None:
        calls = self._servers if place.is_cluster else self._disk
        try:
            StoreInspector(place.storage_dir, place.working_dir, disk=calls).totals()
        except StoreMovedError:
            return
        except FileNotFoundError as error:
            raise MigrationError(f"There is no store here: {error.filename}.") from error


def _fences(source: Port, target: Port) -> tuple[Fence, Fence]:
    """That of the target while it is filled, and that of the source from then on."""
    return (
        Fence("from", source.storage_dir, source.working_dir, source.store_id),
        Fence("to", target.storage_dir, target.working_dir, target.store_id),
    )


def _files(source: Port) -> Iterator[StoredFile]:
    after = None
    while page := source.stored(after, _PAGE):
        yield from page
        after = page[-1].name
