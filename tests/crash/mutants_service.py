"""Mutants of what services rest on: an end where the store is gone; calls end before tasks do."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

SERVICE = [
    Mutant(
        "an expiry's look at its storage dir",
        (Patch("Housekeeping._expire", "self._home.check_storage_in_place()", "pass"),),
        ("tests/contract/test_expiry_replaced.py",),
    ),
    Mutant(
        "an expiry's look at its journal",
        (Patch("Housekeeping._sweep", "self._records.check_in_place(call)", "pass"),),
        ("tests/contract/test_expiry_replaced.py",),
    ),
    Mutant(
        "a cancelled task's wait for its call",
        (Patch("_ended", "running.cancel()", "(running.cancel() or True)"),),
        ("tests/contract/test_aio.py", "-k", "has_begun"),
    ),
    Mutant(
        "metrics that fail change no answer",
        (Patch("tell", 'logger.exception("Metrics could not be told")', "raise"),),
        ("tests/contract/test_metrics.py", "-k", "change_no_answer"),
    ),
    Mutant(
        "blocks of the files that workers count in",
        (
            Patch(
                "_allocate",
                "os.posix_fallocate(file.fileno(), 0, _SIZE)",
                "file.truncate(_SIZE)",
            ),
        ),
        ("tests/contract/test_metrics.py", "-k", "without_its_place"),
    ),
]
