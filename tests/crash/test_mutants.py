"""The tests can fail: whatever the promises rest on, taken away, is seen.

A few mutants are hunted here, others after each change of the code; ``python tests/crash mutants``
hunts all.
"""

from __future__ import annotations

import pytest

from crash.mutant_list import MUTANTS
from crash.mutants import PROJECT, Mutant, run, some

MORTAL = [one for one in MUTANTS if not one.survives]
HUNTED = some(MORTAL, 3)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutants_lines_are_there(mutant: Mutant) -> None:
    for module, old, _ in ((mutant.module, mutant.old, mutant.new), *mutant.also):
        assert (PROJECT / "txstore" / module).read_text().count(old) == 1


@pytest.mark.parametrize("mutant", HUNTED, ids=lambda one: one.name)
def test_what_is_taken_away_is_missed(mutant: Mutant) -> None:
    verdict = run(mutant, 60.0)
    assert verdict.died, verdict.text


def test_the_table_lists_every_mutant() -> None:
    text = (PROJECT / "docs" / "design.md").read_text()
    assert [one.name for one in MUTANTS if f"| {one.name} (" not in text] == []
