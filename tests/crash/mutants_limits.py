"""Mutants of limits and of the policy for names that are taken: both are exact, and a refusal
changes nothing."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_TOGETHER = ("tests/contract/test_limits_together.py",)

LIMITS = [
    Mutant(
        "limit of a file's size under the transfer's lock",
        (Patch("_admit", "size_refusal(limits, request, known.received)", "None"),),
        ("tests/contract/test_limits.py",),
    ),
    Mutant(
        "the statement that begins a transfer counts all of them",
        (
            Patch(
                "INSERT",
                "_max_transfers.is_(None) | (_transfers < _max_transfers)",
                "_max_transfers.is_(None) | (_max_transfers > 0)",
            ),
        ),
        _TOGETHER,
    ),
    Mutant(
        "the statement that records a segment adds up the bytes of all",
        (Patch("HAS_BYTES", "_bytes + _more <= _max_bytes", "_more <= _max_bytes"),),
        _TOGETHER,
    ),
    Mutant(
        "a segment that is refused after it was staged holds no space",
        (Patch("Appender.append", "staged.cut(row.offset)", "pass"),),
        _TOGETHER,
    ),
]
