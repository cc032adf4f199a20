"""The command: searching by hand, and replaying what a test found."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Iterable

from crash import mutants
from crash.errors import Injection, inject, sampled
from crash.search import LEVELS, Run, Search, Tally
from crash.workloads import BY_NAME, WORKLOADS
from crash.world import Folders


def runs() -> list[Run]:
    """Every workload at every level."""
    return [
        Run(workload, level)
        for workload in WORKLOADS
        for level in (LEVELS if not workload.mixed else LEVELS[:1])
    ]


def run_of(name: str) -> Run:
    workload, _, level = name.rpartition("/")
    return Run(BY_NAME[workload], level)


def search(wanted: Iterable[Run], share: float, again: float) -> Tally:
    """Search runs one after another."""
    total = Tally()
    folders = Folders()
    try:
        for run in wanted:
            total.merge(Search(run, folders).everything(share, again))
    finally:
        folders.close()
    return total


def replay_command(label: str) -> str:
    return f"python tests/crash replay {label!r}"


def hunt(
    wanted: Iterable[Run], seconds: float, opening: bool, again: bool, faults: list[str]
) -> str | None:
    """What is broken first, by a crash, or by faults of some calls; ``None``: nothing."""
    folders = Folders()
    try:
        for run in wanted:
            if not faults:
                found = Search(run, folders).hunt(seconds, opening, again)
                if found is not None:
                    return found
                continue
            end = time.monotonic() + seconds
            for one in sampled([run], folders, 1_000_000, run.name):
                if one.call not in faults:
                    continue
                try:
                    inject(one, folders, 6)
                except Exception:  # noqa: BLE001 - it is reported
                    return f"{one.label}\n{traceback.format_exc(limit=-4)}"
                if time.monotonic() > end:
                    break
        return None
    finally:
        folders.close()


def fault_command(label: str) -> str:
    return f"python tests/crash fault {label!r}"


#: How many crashes are looked at after a fault.
CRASHES = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/crash", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    searching = commands.add_parser("search", help="search runs, all by default")
    searching.add_argument("run", nargs="*", type=run_of)
    searching.add_argument("--share", type=float, default=1.0)
    searching.add_argument("--again", type=float, default=0.01)
    replaying = commands.add_parser("replay", help="check one state again")
    replaying.add_argument("label")
    failing = commands.add_parser("fault", help="run with one fault again")
    failing.add_argument("label")
    hunting = commands.add_parser("hunt", help="search until something is broken")
    hunting.add_argument("run", nargs="+", type=run_of)
    hunting.add_argument("--seconds", type=float, default=20.0)
    hunting.add_argument("--opening", action="store_true")
    hunting.add_argument("--again", action="store_true")
    hunting.add_argument("--faults", action="append", default=[], help="calls that fail")
    mutating = commands.add_parser("mutants", help="remove what the promises rest on")
    mutating.add_argument("--table", action="store_true", help="write the table in docs/design.md")
    mutating.add_argument("--seconds", type=float, default=60.0)
    mutating.add_argument("name", nargs="*")
    given = parser.parse_args()
    if given.command == "hunt":
        found = hunt(given.run, given.seconds, given.opening, given.again, given.faults)
        sys.stdout.write(f"{found or 'nothing is broken'}\n")
        sys.exit(found is not None)
    if given.command == "mutants":
        sys.exit(mutants.main(given.name, given.seconds, given.table))
    if given.command == "fault":
        folders = Folders()
        try:
            run = run_of(given.label.partition("#")[0])
            inject(Injection.of(given.label, run), folders, CRASHES)
        finally:
            folders.close()
        return
    if given.command == "replay":
        folders = Folders()
        try:
            Search(run_of(given.label.partition("@")[0]), folders).replay(given.label)
        finally:
            folders.close()
        return
    began = time.monotonic()
    tally = search(given.run or runs(), given.share, given.again)
    for label, text in list(tally.failures.items()):
        sys.stdout.write(f"{replay_command(label)}\n{text}\n")
    sys.stdout.write(f"{tally.report()}\n{len(tally.failures)} failures,")
    sys.stdout.write(f" {time.monotonic() - began:.1f} s\n")
    sys.exit(bool(tally.failures))
