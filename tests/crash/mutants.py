"""What the promises rest on, taken away piece by piece: each time a promise must be seen broken.

A mutant is a copy of the project in which some code is other code.  It dies if the search, the
faults, or a test file that is named for it, finds a promise broken.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from crash.patches import Patch, apply
from crash.world import SCRATCH

PROJECT = Path(__file__).parents[2]
#: Set in the environment of test files in which a mutant is hunted: they try more.
HUNTING = "TXSTORE_TESTS_HUNTING"
BEGIN, END = "<!-- mutants:begin -->", "<!-- mutants:end -->"


class Mutant(NamedTuple):
    """Something that the promises rest on, taken away.

    :ivar name: what is taken away
    :ivar patches: how; the first says where
    :ivar hunt: arguments of ``hunt``, or test files
    :ivar survives: why it is not seen, or not needed; empty: it must die
    """

    name: str
    patches: tuple[Patch, ...]
    hunt: tuple[str, ...]
    survives: str = ""


class Verdict(NamedTuple):
    """What became of a mutant.

    :ivar died: a promise was seen broken
    :ivar text: which
    """

    mutant: Mutant
    died: bool
    text: str


#: What a broken promise says of itself; an error of any other kind is no proof.
_PROMISE = re.compile(r"promise \d: .*")


def run(mutant: Mutant, seconds: float) -> Verdict:
    """Hunt one mutant.

    :raises NoPlaceError: what it takes away is not there (any more)
    """
    with tempfile.TemporaryDirectory(prefix="txstore-mutant-", dir=SCRATCH) as folder:
        for part in ("txstore", "migrations", "tests", "pyproject.toml"):
            source, target = PROJECT / part, Path(folder, part)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        apply(Path(folder, "txstore"), *mutant.patches)
        command = [sys.executable, "tests/crash", "hunt", *mutant.hunt, "--seconds", str(seconds)]
        if mutant.hunt[0].endswith(".py"):
            options = ["-xq", "-p", "no:cacheprovider"]
            command = [sys.executable, "-m", "pytest", *options, *mutant.hunt]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": folder, "PYTEST_ADDOPTS": "", HUNTING: "1"},
                capture_output=True,
                text=True,
                timeout=20 * seconds + 120,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Verdict(mutant, False, "the hunt does not end")
    seen = [match[0] for line in done.stdout.splitlines() if (match := _PROMISE.search(line))]
    if done.returncode == 1 and seen:
        return Verdict(mutant, True, _short(seen[-1]))
    if done.returncode == 0:
        return Verdict(mutant, False, "nothing is broken")
    return Verdict(mutant, False, f"no promise is broken: {_short(done.stdout[-300:])}")


def _short(text: str) -> str:
    line = " ".join(text.replace("|", "/").split())
    return line if len(line) <= 140 else f"{line[:137]}..."


def verdicts(names: Iterable[str], seconds: float) -> list[Verdict]:
    """All mutants, or those of some names, two at a time."""
    from crash.mutant_list import MUTANTS

    wanted = [one for one in MUTANTS if not names or one.name in names]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda one: run(one, seconds), wanted))


def some(mutants: list[Mutant], count: int) -> list[Mutant]:
    """As many mutants, which the package's own text picks: others after each change of it."""
    text = hashlib.sha256()
    for path in sorted((PROJECT / "txstore").rglob("*.py")):
        text.update(path.read_bytes())
    return random.Random(text.digest()).sample(mutants, count)


def table(found: list[Verdict]) -> str:
    """The verdicts, for people."""
    lines = ["| taken away | what is seen |", "|---|---|"]
    for one in found:
        seen = one.text if one.died else f"**survives**: {one.mutant.survives or one.text}"
        lines.append(f"| {one.mutant.name} (`{one.mutant.patches[0].symbol}`) | {seen} |")
    died = sum(one.died for one in found)
    return "\n".join(
        [
            *lines,
            "",
            f"{died} of {len(found)} die. Written by `python tests/crash mutants --table`.",
        ]
    )


def main(names: list[str], seconds: float, write: bool) -> int:
    """Hunt, and show or write the table; 1 where a mutant survives without a reason."""
    found = verdicts(names, seconds)
    text = table(found)
    if write:
        path = PROJECT / "docs" / "design.md"
        before, _, rest = path.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    sys.stdout.write(text + "\n")
    return int(any(not one.died and not one.mutant.survives for one in found))
