"""The command: everything at full size, hunting by hand, and replaying what a test found."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar, cast

from crash import mutants
from crash.errors import CRASHES, Injection, inject, inject_some, sampled
from crash.search import LEVELS, Run, Search, Tally
from crash.workloads import BY_NAME, WORKLOADS
from crash.world import Folders
from txstore.options import Level

#: Runs in which calls fail.
FAULTY = [f"{name}/{level}" for name in ("all sorts", "other file system") for level in LEVELS]

_ALL_FAULTS = 1_000_000

_S = TypeVar("_S")
_T = TypeVar("_T")


def runs() -> list[Run]:
    """Every workload at every level."""
    return [
        Run(workload, level)
        for workload in WORKLOADS
        for level in (LEVELS if not workload.mixed else LEVELS[:1])
    ]


def run_of(name: str) -> Run:
    workload, _, level = name.rpartition("/")
    return Run(BY_NAME[workload], cast(Level, level))


def replay_command(label: str) -> str:
    return f"python tests/crash replay {label!r}"


def fault_command(label: str) -> str:
    return f"python tests/crash fault {label!r}"


# --- at full size --------------------------------------------------------------------------------


def _by_all_processors(work: Callable[[_S], _T], parts: Iterable[_S]) -> Iterator[_T]:
    """What ``work`` answers to each part."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        yield from pool.map(work, parts)


def _searched(run: Run, share: float, again: float) -> Tally:
    folders = Folders()
    try:
        return Search(run, folders).everything(share, again)
    finally:
        folders.close()


def search(wanted: list[Run], share: float, again: float) -> bool:
    """Search runs, show what was seen, and answer whether all is well.  All runs at their full
    share must have seen as much as a complete search has to."""
    tally = Tally()
    for one in _by_all_processors(partial(_searched, share=share, again=again), wanted or runs()):
        tally.merge(one)
    for label, text in tally.failures.items():
        _say(f"{replay_command(label)}\n{text}")
    missing = tally.missing() if not wanted and share == 1.0 else []
    _say(tally.report(), f"{len(tally.failures)} failures", *missing)
    return not tally.failures and not missing


def faults(count: int) -> bool:
    """Inject so many faults into each run; show how many, and answer whether all is well."""
    total, broken = 0, 0
    wanted = [run_of(name) for name in FAULTY]
    for struck, failures in _by_all_processors(partial(inject_some, count=count), wanted):
        total, broken = total + struck, broken + len(failures)
        for label, text in failures:
            _say(f"{fault_command(label)}\n{text}")
    _say(f"{total:9d} faults injected", f"{broken} failures")
    return not broken


def kills(count: int) -> bool:
    """Kill so many workers at each level; show how many."""
    from crash.kills import kill_some  # it imports a lot, which a hunt has no use for

    found = list(_by_all_processors(partial(kill_some, kills=count), LEVELS))
    _say(f"{sum(killed for killed, _ in found):9d} workers killed")
    _say(f"{sum(stored for _, stored in found):9d} files stored by others")
    return True


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join([*lines, ""]))


# --- by hand -------------------------------------------------------------------------------------


def hunt(
    wanted: Iterable[Run], seconds: float, opening: bool, again: bool, calls: list[str]
) -> str | None:
    """What is broken first, by a crash, or by faults of some calls; ``None``: nothing."""
    folders = Folders()
    try:
        for run in wanted:
            if not calls:
                found = Search(run, folders).hunt(seconds, opening, again)
                if found is not None:
                    return found
                continue
            end = time.monotonic() + seconds
            for one in sampled([run], folders, _ALL_FAULTS, run.name):
                if one.call not in calls:
                    continue
                try:
                    inject(one, folders, 2 * CRASHES)
                except Exception:  # noqa: BLE001 - it is reported
                    return f"{one.label}\n{traceback.format_exc(limit=-4)}"
                if time.monotonic() > end:
                    break
        return None
    finally:
        folders.close()


def replay(label: str) -> None:
    """Look at one state again.

    :raises Exception: what is broken there
    """
    folders = Folders()
    try:
        Search(run_of(label.partition("@")[0]), folders).replay(label)
    finally:
        folders.close()


def fault(label: str) -> None:
    """Inject one fault again.

    :raises Exception: what it broke
    """
    folders = Folders()
    try:
        struck = inject(Injection.of(label, run_of(label.partition("#")[0])), folders, CRASHES)
        if not struck:
            sys.exit("There is no such call in that run: nothing failed.")
    finally:
        folders.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tests/crash", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("search", help="crash at every operation; all runs by default")
    adding.add_argument("run", nargs="*", type=run_of)
    adding.add_argument("--share", type=float, default=1.0, help="of the states")
    adding.add_argument("--again", type=float, default=0.015, help="of these, to crash again")
    adding = commands.add_parser("faults", help="have every call fail")
    adding.add_argument("--count", type=int, default=2000, help="for each run")
    adding = commands.add_parser("kills", help="kill workers")
    adding.add_argument("--count", type=int, default=400, help="for each level")
    adding = commands.add_parser("mutants", help="remove what the promises rest on")
    adding.add_argument("--table", action="store_true", help="write the table in docs/design.md")
    adding.add_argument("--seconds", type=float, default=60.0, help="for each hunted run")
    adding.add_argument("name", nargs="*")
    adding = commands.add_parser("replay", help="look at one state again")
    adding.add_argument("label")
    adding = commands.add_parser("fault", help="inject one fault again")
    adding.add_argument("label")
    adding = commands.add_parser("hunt", help="search until something is broken")
    adding.add_argument("run", nargs="+", type=run_of)
    adding.add_argument("--seconds", type=float, default=20.0, help="for each run")
    adding.add_argument("--opening", action="store_true", help="also before the first message")
    adding.add_argument("--again", action="store_true", help="crash again after a kill")
    adding.add_argument("--faults", action="append", default=[], help="calls that fail")
    return parser


def main() -> None:
    given = _parser().parse_args()
    logging.disable(logging.WARNING)  # of what crashes took
    if given.command == "replay":
        replay(given.label)
        _say("nothing is broken")
    elif given.command == "fault":
        fault(given.label)
        _say("nothing is broken")
    elif given.command == "hunt":
        found = hunt(given.run, given.seconds, given.opening, given.again, given.faults)
        _say(found or "nothing is broken")
        sys.exit(found is not None)
    elif given.command == "mutants":
        sys.exit(mutants.main(given.name, given.seconds, given.table))
    else:
        began = time.monotonic()
        if given.command == "search":
            well = search(given.run, given.share, given.again)
        else:
            well = (faults if given.command == "faults" else kills)(given.count)
        _say(f"{time.monotonic() - began:9.0f} seconds")
        sys.exit(not well)
