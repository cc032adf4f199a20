"""Whatever a crash leaves, at any point of any workload, the promises hold after it.

The fast suite looks at a seeded sample; ``TXSTORE_FULL=1`` at everything.  Both print the counts
by class of state; a failure prints the command that replays it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from crash.command import replay_command, runs
from crash.search import Run, Search, Tally
from crash.world import Folders

FULL = bool(os.environ.get("TXSTORE_FULL"))

#: Share of the states, and of those the share whose recovery crashes again.
SHARE, AGAIN = (1.0, 0.02) if FULL else (0.01, 0.015)

#: What the full search must have seen of each class.
CLASSES = (
    *("torn", "zero-filled", "name lost", "both names", "journal behind", "journal ahead"),
    "crashed again",
)


@pytest.fixture(scope="module")
def folders() -> Iterator[Folders]:
    made = Folders()
    yield made
    made.close()


@pytest.fixture(scope="module")
def total(pytestconfig: pytest.Config) -> Iterator[Tally]:
    tally = Tally()
    yield tally
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("")
        reporter.write_line(tally.report())


@pytest.mark.parametrize("run", runs(), ids=lambda run: run.name)
def test_promises_hold_after_every_crash(run: Run, folders: Folders, total: Tally) -> None:
    tally = Search(run, folders).everything(SHARE, AGAIN)
    total.merge(tally)
    if tally.failures:
        shown = [
            f"{replay_command(label)}\n{text}" for label, text in list(tally.failures.items())[:3]
        ]
        pytest.fail(f"{len(tally.failures)} states break a promise\n" + "\n".join(shown))


@pytest.mark.skipif(not FULL, reason="the fast suite looks at a sample")
def test_the_search_is_as_large_as_it_claims_to_be(total: Tally) -> None:
    assert len(total.states) >= 100_000
    assert len(total.by_power - total.by_kill) >= 0.3 * len(total.states)
    assert min(total.classes[name] for name in CLASSES) >= 1_000
