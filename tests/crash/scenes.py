"""What tests of one certain moment share: managers over a simulated disk, and what may be left."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from crash.search import Run, Search, states
from crash.steps import Event, History, Send, Session, Upload
from crash.workloads import Workload
from crash.world import Clock, Folders, fixed
from txstore.errors import SequenceError
from txstore.options import Level
from txstore.testing import operations as ops
from txstore.testing.disk import SimulatedDisk
from txstore.testing.faults import FaultPlan, SimulatedCrash
from txstore.testing.powerloss import Platter


@contextmanager
def scene(
    name: str,
    level: Level = "segment",
    *,
    faults: FaultPlan | None = None,
    after: tuple[Platter, History] | None = None,
    disk_type: type[SimulatedDisk] = SimulatedDisk,
    boot: str = "boot-0",
) -> Iterator[tuple[Session, SimulatedDisk]]:
    """A session over a disk that records; at its end all managers are closed.

    :param after: what another one left, and its history
    """
    base, history = after or (Platter(), ())
    folders, clock = Folders(), Clock()
    try:
        with folders.one() as root, fixed(name, clock):
            tree = base.kernel() if after else None
            disk = disk_type(
                root,
                base.copy() if after else None,
                tree.build(root) if tree else None,
                faults=faults,
                boot=boot,
            )
            session = Session(root, disk, clock, level, history, None)
            try:
                yield session, disk
            finally:
                with suppress(SimulatedCrash):
                    session.close()
    finally:
        folders.close()


def acks(log: list[ops.Operation]) -> set[int]:
    """The positions in a log at which something was acknowledged."""
    return {
        at
        for at, op in enumerate(log, 1)
        if isinstance(op, ops.Note) and isinstance(op.what, Event) and op.what.acked
    }


def check_crashes(
    run: Run,
    log: list[ops.Operation],
    only: Collection[int] | None = None,
    *,
    after: tuple[Platter, History] | None = None,
    randoms: int = 4,
) -> None:
    """Hold what crashes leave of a log to the promises.

    :param only: positions to look at; ``None``: all
    :raises PromiseBrokenError: one is broken
    """
    base, history = after or (Platter(), ())
    folders = Folders()
    try:
        search = Search(run, folders)
        positions = None if only is None else set(only)
        found = states(log, base.copy(), history, run.name, randoms=randoms, only=positions)
        for state in found:
            search.check(state)
    finally:
        folders.close()


def run_of(name: str, level: Level, *uploads: Upload, mixed: bool = False) -> Run:
    """A run in which these uploads may come to their ends."""
    return Run(Workload(name, tuple(Send(one, 1) for one in uploads), mixed=mixed), level)


def finish(session: Session, one: Upload, actor: int = 0) -> None:
    """As a sender does: the last message again, or all from the start where the store says so."""
    try:
        session.do(Send(one, one.last, actor))
    except SequenceError as error:
        if error.expected != 1:
            raise
        for number in range(1, one.last + 1):
            session.do(Send(one, number, actor))
