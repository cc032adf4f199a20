"""Mutants of what keeps ``check`` from telling of damage that is none, from writing, and from
disturbing workers; and ``repair`` from taking what is somebody's."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_BESIDE = ("tests/local/test_check_beside.py",)
_CHECK = ("tests/local/test_check.py",)
_REPAIR = ("tests/local/test_repair.py",)

CHECKS = [
    Mutant(
        "what is found is looked at again under its lock",
        (Patch("TransferChecks._examine", "sure", "True"),),
        _BESIDE,
    ),
    Mutant(
        "who looks holds locks against those who work",
        (Patch("SharedLocks._with", "not self._try_hold(byte)", "False"),),
        _BESIDE,
    ),
    Mutant(
        "bytes of a row that is gone are not judged",
        (Patch("TransferChecks._examine", "current is not None and seen is not None", "seen"),),
        _BESIDE,
    ),
    Mutant(
        "a journal at rest is read with its lock held",
        (Patch("JournalReader._run", "not at_rest", "True"),),
        _BESIDE,
    ),
    Mutant(
        "no manager opens the index while somebody only reads it",
        (Patch("JournalReader._hold", "attempt.enter_context(forks.indexing)", "pass"),),
        _BESIDE,
    ),
    Mutant(
        "who only reads keeps the index's descriptor open",
        (Patch("JournalReader._run", "index.join()", "pass"),),
        _BESIDE,
    ),
    Mutant(
        "who only reads does not write the index",
        (Patch("JournalReader._access", "'ro&readonly_shm=1'", "'ro'"),),
        _CHECK,
    ),
    Mutant(
        "what a power loss may take is no damage",
        (Patch("TransferChecks._may_go_back", "row.durable_segments == 0", "False"),),
        ("brief/none", "brief mixed/none"),
    ),
    Mutant(
        "a file whose record a power loss took was not changed by anybody",
        (Patch("StoredChecks._see_last", "not self._found.is_this_boot(done.boot)", "False"),),
        _CHECK,
    ),
    Mutant(
        "nothing but a leftover is removed as one",
        (Patch("Repair._remove_leftover", "not temporary.match(name)", "False"),),
        _REPAIR,
    ),
]
