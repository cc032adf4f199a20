"""Mutants of the backup: what was acknowledged before it began is in it, whatever workers do."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_BESIDE = ("tests/processes/test_backup_beside.py",)
_KILLED = ("tests/processes/test_backup_killed.py",)
_ALONE = ("tests/local/test_backup.py",)

BACKUP = [
    Mutant(
        "the journal is copied before the files",
        (
            Patch("back_up", "tree.copy()", ""),
            Patch(
                "back_up",
                "rows = StagedCopies(look, destination, copier, backup, tell, like).copy(journal)",
                "Tree(look.found, destination, copier, backup, tell, links=links).copy()\n"
                "rows = StagedCopies(look, destination, copier, backup, tell, like).copy(journal)",
            ),
        ),
        _BESIDE,
    ),
    Mutant(
        "a newer look tells what became of a transfer",
        (Patch("_MOST_LOOKS", "5", "1"),),
        _BESIDE,
    ),
    Mutant(
        "a newer file is no damage",
        (
            Patch(
                "JournalCopy.change",
                "f\"UPDATE {table} SET boot = '', durable = 1\"",
                'f"UPDATE {table} SET durable = 1"',
            ),
        ),
        _ALONE,
    ),
    Mutant(
        "copied bytes have their row's hash",
        (Patch("StagedCopies._copy", "hasher.digest() == digest.digest_of(state, known)", "True"),),
        _ALONE,
    ),
    Mutant(
        "all of a backup is durable before its journal has its place",
        (Patch("Destination.switch", "self._disk.flush_file_system(self.root)", ""),),
        _ALONE,
    ),
    Mutant(
        "nothing of an older backup goes before the new journal has its place",
        (
            Patch("back_up", "destination.switch(journal.name)", ""),
            Patch(
                "back_up",
                'destination.remove_staged({row["staging"] for row in rows})',
                'destination.remove_staged({row["staging"] for row in rows})\n'
                "destination.switch(journal.name)",
            ),
        ),
        _KILLED,
    ),
]
