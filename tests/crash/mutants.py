"""What the promises rest on, taken away piece by piece: each time a promise must be seen broken.

A mutant is a copy of the project in which some lines are other ones.  It dies if the search, the
faults, or a test file that is named for it, finds a promise broken.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- mutants:begin -->", "<!-- mutants:end -->"


class Mutant(NamedTuple):
    """Some lines, and others in their place.

    :ivar name: what is taken away
    :ivar module: file below ``txstore/``
    :ivar old: what stands there, once
    :ivar hunt: arguments of ``hunt``, or test files
    :ivar also: more of the same, in other modules
    :ivar survives: why it is not seen, or not needed; empty: it must die
    """

    name: str
    module: str
    old: str
    new: str
    hunt: tuple[str, ...]
    survives: str = ""
    also: tuple[tuple[str, str, str], ...] = ()


class Verdict(NamedTuple):
    mutant: Mutant
    died: bool
    text: str


def run(mutant: Mutant, seconds: float) -> Verdict:
    """Hunt one mutant."""
    with tempfile.TemporaryDirectory(prefix="txstore-mutant-") as folder:
        for part in ("txstore", "migrations", "tests", "pyproject.toml"):
            source, target = PROJECT / part, Path(folder, part)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        for module, old, new in ((mutant.module, mutant.old, mutant.new), *mutant.also):
            path = Path(folder, "txstore", module)
            text = path.read_text()
            if text.count(old) != 1:
                return Verdict(mutant, False, "its lines are not there (any more)")
            path.write_text(text.replace(old, new))
        command = [sys.executable, "tests/crash", "hunt", *mutant.hunt, "--seconds", str(seconds)]
        if mutant.hunt[0].endswith(".py"):
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-xq",
                "-p",
                "no:cacheprovider",
                *mutant.hunt,
            ]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            timeout=20 * seconds + 120,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode not in (0, 1) or not lines:
        return Verdict(mutant, False, f"the hunt failed: {done.stderr[-300:]}")
    errors = [line for line in lines if line.startswith("E  ")]
    return Verdict(mutant, done.returncode == 1, _short((errors or lines)[-1].lstrip("E ")))


def _short(line: str) -> str:
    return line.replace("crash.oracle.PromiseBrokenError: ", "").replace("|", "/")[:140]


def verdicts(names: Iterable[str], seconds: float) -> list[Verdict]:
    """All mutants, or those of some names, two at a time."""
    from crash.mutant_list import MUTANTS

    wanted = [one for one in MUTANTS if not names or one.name in names]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda one: run(one, seconds), wanted))


def table(found: list[Verdict]) -> str:
    """The verdicts, for people."""
    lines = ["| taken away | what is seen |", "|---|---|"]
    for one in found:
        seen = one.text if one.died else f"**survives**: {one.mutant.survives or one.text}"
        lines.append(f"| {one.mutant.name} (`{one.mutant.module}`) | {seen} |")
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
