"""Whatever a crash leaves, at any point of any workload, the promises hold after it.

A seeded sample is looked at here, ``python tests/crash search`` looks at everything.  Both print
the counts by class of state; a failure prints the command that replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from counted import COUNTED

from crash.command import replay_command, runs
from crash.search import Run, Search
from crash.world import Folders

#: Share of the states, and of those the share whose recovery crashes again.
SHARE, AGAIN = 0.01, 0.015


@pytest.fixture(scope="module")
def folders() -> Iterator[Folders]:
    made = Folders()
    yield made
    made.close()


@pytest.mark.parametrize("run", runs(), ids=lambda run: run.name)
def test_promises_hold_after_every_crash(
    run: Run, folders: Folders, record_property: Callable[[str, object], None]
) -> None:
    tally = Search(run, folders).everything(SHARE, AGAIN)
    record_property(COUNTED, tally.counts())
    assert tally.states
    if tally.failures:
        shown = [
            f"{replay_command(label)}\n{text}" for label, text in list(tally.failures.items())[:3]
        ]
        pytest.fail(f"{len(tally.failures)} states break a promise\n" + "\n".join(shown))
