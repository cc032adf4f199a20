"""Mutants of what is done, at whatever level, for what others were promised."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

PROMISED = [
    Mutant(
        "level none flushes the completion of a promised transfer",
        (
            Patch(
                "Publisher.complete",
                "if careful:\n    self._records.flush(call)",
                "if self._keeps:\n    self._records.flush(call)",
            ),
        ),
        ("tests/crash/test_promised_by_others.py",),
    ),
    Mutant(
        "flush of the journal before an orphan goes",
        (Patch("Housekeeping.remove_orphan", "self._records.flush(call)", ""),),
        ("tests/crash/test_promised_by_others.py",),
    ),
]
