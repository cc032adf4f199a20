"""The tests can fail: whatever the promises rest on, taken away, is seen.

A few mutants are hunted here, others after each change of the code; ``python tests/crash mutants``
hunts all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.mutant_list import MUTANTS
from crash.mutants import PROJECT, Mutant, run, some
from crash.patches import NoPlaceError, Patch, apply, find

MORTAL = [one for one in MUTANTS if not one.survives]
HUNTED = some(MORTAL, 3)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_what_a_mutant_takes_away_is_there(mutant: Mutant) -> None:
    for patch in mutant.patches:
        find(PROJECT / "txstore", patch)
    for path in mutant.hunt:
        assert not path.endswith(".py") or (PROJECT / path).exists()


def _package(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_code_that_was_moved_and_formatted_is_found(tmp_path: Path) -> None:
    text = """\
class One:
    def flush(self, fd):
        # Before anybody is told.
        if (
            fd
        ): self.disk.flush(  # really
            fd)
"""
    package = _package(tmp_path, elsewhere=text)
    apply(package, Patch("One.flush", "if fd:\n    self.disk.flush(fd)", "self.flushed = True"))
    assert (package / "elsewhere.py").read_text().endswith("        self.flushed = True\n")


@pytest.mark.parametrize(
    ("symbol", "old", "told"),
    [
        ("gone", "disk.flush(fd)", "there is no gone"),
        ("one", "disk.close(fd)", "0 places"),
        ("one", "disk.flush(fd)", "2 places"),
        ("two", "disk.flush(fd)", "2 places"),
    ],
)
def test_a_mutant_without_a_place_of_its_own_is_an_error(
    tmp_path: Path, symbol: str, old: str, told: str
) -> None:
    one = "def one(disk, fd):\n    disk.flush(fd)\n    disk.flush(fd)\n"
    two = "def two(disk, fd):\n    disk.flush(fd)\n"
    package = _package(tmp_path, a=one + two, b=two)
    with pytest.raises(NoPlaceError, match=told):
        apply(package, Patch(symbol, old, ""))


@pytest.mark.parametrize("mutant", HUNTED, ids=lambda one: one.name)
def test_what_is_taken_away_is_missed(mutant: Mutant) -> None:
    verdict = run(mutant, 60.0)
    assert verdict.died, verdict.text


def test_the_table_lists_every_mutant() -> None:
    text = (PROJECT / "docs" / "design.md").read_text()
    assert [one.name for one in MUTANTS if f"| {one.name} (" not in text] == []
