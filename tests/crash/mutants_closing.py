"""Mutants of how a connection to the journal, and its log, come to their ends."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

CLOSING = [
    Mutant(
        "flush of the log's name",
        (Patch("WalFile.write_anew", "self._disk.flush_folder(self._folder_fd)", ""),),
        ("tests/crash/test_name_of_the_log.py",),
    ),
    Mutant(
        "who cannot settle the log closes without a checkpoint",
        (
            Patch(
                "Connection.close",
                "handles.close_unsettled(connection)",
                "handles.close_settled(connection)",
            ),
        ),
        ("tests/crash/test_unsettled_log.py",),
    ),
    Mutant(
        "a connection that cannot be opened closes without a checkpoint",
        (
            Patch(
                "Connection._open",
                "handles.close_unsettled(connection)",
                "handles.close_settled(connection)",
            ),
        ),
        ("tests/crash/test_unsettled_log.py",),
    ),
    Mutant(
        "an upgrade that cannot settle the log closes without a checkpoint",
        (
            Patch(
                "_settle_and_close",
                "handles.close_unsettled(raw)",
                "handles.close_settled(raw)",
            ),
        ),
        ("tests/crash/test_unsettled_log.py",),
    ),
    Mutant(
        "no collector and no interpreter's end closes a connection",
        (
            Patch("open_writing", "_python.Py_IncRef(connection)", ""),
            Patch("_close", "_python.Py_DecRef(connection)", ""),
            Patch("open_writing", "_never_checkpoint(connection, True)", ""),
        ),
        ("tests/crash/test_unsettled_log.py",),
    ),
    Mutant(
        "the row of a new store rests on no checkpoint",
        (Patch("_fill", "'PRAGMA journal_mode=MEMORY'", "'PRAGMA journal_mode=WAL'"),),
        ("tests/local/test_making_the_journal.py", "-k", "not whatever"),
    ),
    Mutant(
        "a journal with a second name is not written",
        (
            Patch(
                "_make_current",
                """\
                if home.disk.stat(JOURNAL, dir_fd=home.working).st_nlink > 1:
                    separate(home)""",
                "",
            ),
        ),
        ("tests/local/test_making_the_journal.py", "-k", "not whatever"),
    ),
]
