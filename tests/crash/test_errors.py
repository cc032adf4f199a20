"""A failed disk is not the end: any call may fail, once or from then on.

What is checked of each fault is in ``errors.py``.  The fast suite takes a seeded sample of the
faults, with as many of each call as of any other; ``TXSTORE_FULL=1`` takes all.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator

import pytest

from crash.command import CRASHES, fault_command, run_of
from crash.errors import inject, sampled
from crash.search import LEVELS
from crash.world import Folders

FULL = bool(os.environ.get("TXSTORE_FULL"))
COUNT = 1_000_000 if FULL else 30

RUNS = [f"{name}/{level}" for name in ("all sorts", "other file system") for level in LEVELS]


@pytest.fixture(scope="module")
def folders() -> Iterator[Folders]:
    made = Folders()
    yield made
    made.close()


@pytest.mark.parametrize("name", RUNS)
def test_a_failed_call_costs_nothing(
    name: str, folders: Folders, pytestconfig: pytest.Config
) -> None:
    failures, struck = [], 0
    for one in sampled([run_of(name)], folders, COUNT, name):
        try:
            struck += inject(one, folders, CRASHES)
        except Exception:  # noqa: BLE001 - it is reported
            failures.append(f"{fault_command(one.label)}\n{traceback.format_exc(limit=-5)}")
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\n{struck} faults injected into {name}")
    assert struck
    assert not failures, f"{len(failures)} of {struck}:\n" + "\n".join(failures[:5])
