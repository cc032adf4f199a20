"""Mutants of moving a store: what keeps two stores from taking segments, and what is compared."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_TESTS = "tests/cluster/test_migration.py"

MOVING = [
    Mutant(
        "a store is fenced before it is copied",
        (Patch("Migration._run", "source.raise_fence(there)", "pass"),),
        (_TESTS, "-k", "workers_that_are_open"),
    ),
    Mutant(
        "whoever has a store open that was moved is refused by PostgreSQL",
        (Patch("set_fence", "_TABLES", "[]"),),
        (_TESTS, "-k", "workers_over_servers"),
    ),
    Mutant(
        "what dead workers left is settled before a store is copied",
        (Patch("Migration._run", "report.damaged = source.settle()", ""),),
        (_TESTS, "-k", "about_to_publish"),
    ),
    Mutant(
        "a stored file is compared with its hash before it is moved",
        (Patch("checked", "file.sha256 not in (None, found.hexdigest())", "False"),),
        (_TESTS, "-k", "stored_file_that_is_damaged"),
    ),
    Mutant(
        "the bytes of a transfer are compared with its hash before it is moved",
        (Patch("LocalPort.read", "recorded not in (None, hasher.digest())", "False"),),
        (_TESTS, "-k", "transfer_that_is_damaged"),
    ),
]
