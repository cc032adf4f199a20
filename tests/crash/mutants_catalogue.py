"""Mutants of the catalogue: what was stored stays in it for as long as it is there, as it is."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_ROWS = ("tests/local/test_catalogue_rows.py",)

CATALOGUE = [
    Mutant(
        "a file's row comes before its completion goes",
        (
            Patch(
                "CatalogueRecords.forget_over",
                "self._journal.write(deadline, *writes, frees=not listed)",
                "self._journal.write(deadline, writes[-1]) and self._journal.write(deadline,"
                " *writes[:-1])",
            ),
        ),
        ("brief catalogued/segment",),
    ),
    Mutant(
        "who forgets takes along what a later row would hide",
        (
            Patch(
                "CatalogueRecords.forget_over",
                "Write(_UNLIST, bounded), *listed, _AGING.removal(bounded)",
                "*listed, _AGING.removal(bounded)",
            ),
        ),
        _ROWS,
    ),
    Mutant(
        "a completion hides the older row of its place",
        (
            Patch(
                "_ALONE",
                "~sa.exists().where(completion.c.place == catalogue.c.place)",
                "sa.true()",
            ),
        ),
        _ROWS,
    ),
    Mutant(
        "a file that was taken away gets no row",
        (Patch("CatalogueRecords.forget_over", "self._is_there(*facts)", "True"),),
        _ROWS,
    ),
    Mutant(
        "a row whose file is missed is told for a week",
        (Patch("Sweeping._look", "over.is_over(row.missed)", "True"),),
        _ROWS,
    ),
    Mutant(
        "the sweep begins anywhere",
        (
            Patch(
                "Sweeping.some",
                "int(secrets.token_hex(8), 16) % (self._last + 1)",
                "0",
            ),
        ),
        _ROWS,
    ),
    Mutant(
        "what is replaced while it is read is read anew",
        (Patch("StoredChecks.verified", "done = latest", "break"),),
        ("tests/contract/test_catalogue.py",),
    ),
    Mutant(
        "an object that is replaced while it is read is read anew",
        (
            Patch(
                "verified",
                "opened.changed()",
                "False",
            ),
        ),
        ("tests/contract/test_catalogue.py",),
    ),
    Mutant(
        "only of the very file that was stored it is said that its bytes rotted",
        (
            Patch(
                "StoredChecks._see",
                "(found.st_ino, found.st_mtime_ns) == (done.inode, done.mtime_ns)",
                "True",
            ),
        ),
        _ROWS,
    ),
    Mutant(
        "completions stay where their rows find no space",
        (
            Patch(
                "CatalogueRecords.forget_over",
                "error.errno not in NO_SPACE",
                "True",
            ),
        ),
        _ROWS,
    ),
]
