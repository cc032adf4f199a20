"""Mutants of published files, their names, and what is answered of them."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

PUBLISHED = [
    Mutant(
        "flush of a finished file's bytes",
        (
            Patch(
                "Publisher.stage_last",
                """\
                if flushed:
                    self._transfers.flush(row, staged.flush_all, call)""",
                "",
            ),
        ),
        ("brief/segment",),
    ),
    Mutant(
        "flush of a finished file's mode",
        (Patch("Publisher.stage_last", "staged.flush_all", "staged.flush"),),
        ("brief/segment",),
    ),
    Mutant(
        "parents are durable before the rename",
        (Patch("Publisher.carry_out", "self._folders.flush_parents(parents)", ""),),
        ("brief deep/segment",),
    ),
    Mutant(
        "the intent is durable before the rename",
        (Patch("Publisher.carry_out", "self._records.flush(call)", ""),),
        ("brief/segment",),
    ),
    Mutant(
        "flush of a finished file's name",
        (
            Patch(
                "Publisher.complete",
                """\
                self._folders.flush_parents(parents)
                self._home.flush_folder(parents.folder)""",
                "pass",
            ),
        ),
        ("brief/segment",),
    ),
    Mutant(
        "flush of the staging folder after the rename",
        (
            Patch(
                "Publisher.complete",
                """\
                if careful:
                    self._staging.flush_folder(row.staging)""",
                "",
            ),
        ),
        ("brief/segment",),
        survives=(
            "a staging file's name that comes back leads to the published file, or to none of a "
            "row's: recovery sees the former by its inode, and the latter is swept as an orphan"
        ),
    ),
    Mutant(
        "flush of the journal after a completion",
        (
            Patch(
                "Publisher.complete",
                """\
                if careful:
                    self._records.flush(call)""",
                "",
            ),
        ),
        ("brief replaced/segment",),
    ),
    Mutant(
        "flush of a one-segment file's bytes",
        (Patch("WholeFiles._at_once", "staged.flush_all()", "pass"),),
        ("brief/segment",),
    ),
    Mutant(
        "flush of a one-segment file's name",
        (
            Patch(
                "WholeFiles._at_once",
                """\
                if self._keeps:
                    self._home.flush_folder(parents.folder)""",
                "",
            ),
        ),
        ("brief/segment",),
    ),
    Mutant(
        "flush of a published file for a repeat",
        (
            Patch(
                "Published.make_durable",
                "self.flush_file(place[-1], parents.folder, forget)",
                "",
            ),
        ),
        ("brief repeats/segment",),
    ),
    Mutant(
        "flush of a published name for a repeat",
        (
            Patch(
                "Published.make_durable",
                """\
                self._folders.flush_parents(parents)
                self._home.flush_folder(parents.folder)""",
                "",
            ),
        ),
        ("brief repeats/segment",),
    ),
    Mutant(
        "flush of the journal before a repeated final answer",
        (Patch("Repeats._secure", "self._records.flush(call)", ""),),
        ("brief repeats/segment",),
    ),
    Mutant(
        "a cancel makes durable what another dropped",
        (Patch("LocalEngine._cancel", "self._records.flush(call)", "pass"),),
        ("brief cancelled below/segment",),
    ),
    Mutant(
        "the store's folders are durable before an answer",
        (
            Patch(
                "Home.make_durable",
                """\
                for fd in self._fds:
                    with self.needing("fsync of a folder", fd):
                        self.disk.flush_folder(fd)""",
                "",
            ),
        ),
        ("brief/segment", "--opening", "--again"),
        survives=(
            "who makes a folder flushes its name before the journal has its own; a second safeguard"
        ),
    ),
    Mutant(
        "both flushes of names that a dead worker made",
        (
            Patch(
                "Home.make_durable",
                """\
                for fd in self._fds:
                    with self.needing("fsync of a folder", fd):
                        self.disk.flush_folder(fd)""",
                "",
            ),
            Patch("_make_current", "home.disk.flush_folder(home.working)", ""),
        ),
        ("tests/crash/test_names_of_the_dead.py",),
        survives=(
            "who makes a folder flushes its name before the journal has its own, and SQLite "
            "flushes the working dir with the first frame of a WAL"
        ),
    ),
    Mutant(
        "zeros ahead are cut before a file is published",
        (Patch("Publisher.stage_last", "staged.cut(claim.size)", ""),),
        ("tests/crash/test_zeros_ahead.py",),
    ),
    Mutant(
        "parents of a one-segment file are flushed",
        (Patch("WholeFiles._at_once", "self._folders.flush_parents(parents)", ""),),
        ("brief deep one/segment",),
    ),
    Mutant(
        "level none flushes the file of a transfer that was promised",
        (
            Patch(
                "Publisher.stage_last",
                "self._keeps or row.durable_segments > 0 or row.doubted > 0",
                "self._keeps or row.doubted > 0",
            ),
        ),
        ("brief finished below/segment",),
    ),
    Mutant(
        "level none publishes a promised transfer durably",
        (Patch("Publisher.carry_out", "self._keeps or row.publish_flushed", "self._keeps"),),
        ("brief finished below/segment",),
    ),
    Mutant(
        "level none flushes the name of a promised transfer",
        (Patch("Publisher.complete", "self._keeps or row.publish_flushed", "self._keeps"),),
        ("brief finished below/segment",),
    ),
    Mutant(
        "a folder is remembered as flushed after its flush",
        (
            Patch(
                "FlushedFolders.flush_parents",
                """\
                self._home.flush_folder(above)
                self._remember(key, below)""",
                """\
                self._remember(key, below)
                self._home.flush_folder(above)""",
            ),
        ),
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "a flushed folder's number is not used again",
        (
            Patch(
                "FlushedFolders._remember",
                "self._disk.open_folder('.', dir_fd=folder)",
                "self._disk.open_folder('.', dir_fd=self._home.storage)",
            ),
        ),
        ("tests/crash/test_folders.py",),
    ),
    Mutant(
        "a failed flush of a renamed file forgets its row",
        (Patch("Publisher.complete", "self._records.delete(row, call)", "None"),),
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "a failed flush of a published file forgets its completion",
        (Patch("Repeats._make_durable", "self._records.forget_completion(key, call)", "None"),),
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "an unflushed file is read in another boot",
        (
            Patch(
                "Published.still_there",
                "as_published and (not done.durable) and (not self._home.is_this_boot(done.boot))",
                "False",
            ),
        ),
        ("brief/none", "brief repeats/segment"),
    ),
    Mutant(
        "a file whose row came meanwhile is no orphan",
        (
            Patch(
                "Housekeeping.remove_orphan",
                "held and self._records.by_staging(name, call) is None",
                "held",
            ),
        ),
        ("tests/crash/test_orphans.py",),
    ),
    Mutant(
        "flush of the hidden staging folder's name",
        (
            Patch(
                "Home.hidden_staging",
                """\
                self.disk.flush_folder(hidden)
                self.disk.flush_folder(self.storage)""",
                "",
            ),
        ),
        ("other file system/segment", "--opening"),
    ),
]
