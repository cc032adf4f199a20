"""Mutants of what a published file gets from its folder and its source."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

LIKE_NEW = [
    Mutant(
        "flush of a one-segment file's mode",
        (Patch("WholeFiles._at_once", "staged.flush_all()", "staged.flush()"),),
        ("brief/segment",),
    ),
    Mutant(
        "a copy into an inode made there is recorded before the original goes",
        (
            Patch(
                "Transfers.go_on_with_copy",
                "self.save(row, taken, call)",
                "self._staging.remove(row.staging); self.save(row, taken, call)",
            ),
        ),
        ("tests/crash/test_take_over.py",),
    ),
]
