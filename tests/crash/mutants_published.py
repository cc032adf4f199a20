"""Mutants of published files, their names, and what is answered of them."""

from __future__ import annotations

from crash.mutants import Mutant

PUBLISHED = [
    Mutant(
        "flush of a finished file's bytes",
        "publish.py",
        """\
            if flushed:
                self._transfers.flush(row, staged.flush_all, at, deadline)
""",
        "",
        ("brief/segment",),
    ),
    Mutant(
        "flush of a finished file's mode",
        "publish.py",
        "                self._transfers.flush(row, staged.flush_all, at, deadline)",
        "                self._transfers.flush(row, staged.flush, at, deadline)",
        ("brief/segment",),
    ),
    Mutant(
        "parents are durable before the rename",
        "publish.py",
        """\
            self._flush_parents(parents)
            # The rename takes""",
        "            # The rename takes",
        ("brief deep/segment",),
    ),
    Mutant(
        "the intent is durable before the rename",
        "publish.py",
        """\
            # transfer without bytes, and acknowledged segments would be gone.
            self._records.flush(deadline)
""",
        "",
        ("brief/segment",),
    ),
    Mutant(
        "flush of a finished file's name",
        "publish.py",
        """\
            self._flush_parents(parents)
            self._home.flush_folder(parents.folder)
        # After a power loss""",
        """\
            pass
        # After a power loss""",
        ("brief/segment",),
    ),
    Mutant(
        "flush of the staging folder after the rename",
        "publish.py",
        """\
        if careful:
            self._staging.flush_folder(row.staging)
""",
        "",
        ("brief/segment",),
        survives=(
            "a staging file's name that comes back leads to the published file, or to "
            "none of a row's: recovery sees the former by its inode, and the latter is "
            "swept as an orphan"
        ),
    ),
    Mutant(
        "flush of the journal after a completion",
        "publish.py",
        """\
            raise self._transfers.taken_over(row)
        if self._keeps:
            self._records.flush(deadline)

    def standing""",
        """\
            raise self._transfers.taken_over(row)

    def standing""",
        ("brief replaced/segment",),
    ),
    Mutant(
        "flush of a one-segment file's bytes",
        "publish.py",
        """\
                if self._keeps:
                    staged.flush()
                    self._flush_parents(parents)
""",
        """\
                if self._keeps:
                    self._flush_parents(parents)
""",
        ("brief/segment",),
    ),
    Mutant(
        "flush of a one-segment file's name",
        "publish.py",
        """\
            if self._keeps:
                self._home.flush_folder(parents.folder)
""",
        "",
        ("brief/segment",),
    ),
    Mutant(
        "flush of a published file for a repeat",
        "publish.py",
        """\
            self._flush_file(place[-1], parents.folder, forget)
            self._flush_parents(parents)
            self._home.flush_folder(parents.folder)

    def look""",
        """\
            self._flush_parents(parents)
            self._home.flush_folder(parents.folder)

    def look""",
        ("brief repeats/segment",),
    ),
    Mutant(
        "flush of a published name for a repeat",
        "publish.py",
        """\
            self._flush_file(place[-1], parents.folder, forget)
            self._flush_parents(parents)
            self._home.flush_folder(parents.folder)

    def look""",
        """\
            self._flush_file(place[-1], parents.folder, forget)

    def look""",
        ("brief repeats/segment",),
    ),
    Mutant(
        "flush of the journal before a repeated final answer",
        "repeats.py",
        """\
            return False
        self._records.flush(deadline)
        return True

    def _make_durable""",
        """\
            return False
        return True

    def _make_durable""",
        ("brief repeats/segment",),
    ),
    Mutant(
        "a cancel makes durable what another dropped",
        "store.py",
        """\
            # There is nothing to drop (any more), but who dropped it may not have flushed.
            self._records.flush(deadline)
        else:""",
        """\
            pass
        else:""",
        ("brief cancelled below/segment",),
    ),
    Mutant(
        "the store's folders are durable before an answer",
        "home.py",
        """\
        for fd in self._fds:
            self.disk.flush_folder(fd)
""",
        "",
        ("brief/segment", "--opening", "--again"),
        survives=(
            "who makes a folder flushes its name before the journal has its own; a second safeguard"
        ),
    ),
    Mutant(
        "both flushes of names that a dead worker made",
        "home.py",
        """\
        for fd in self._fds:
            self.disk.flush_folder(fd)
""",
        "",
        ("tests/crash/test_names_of_the_dead.py",),
        survives=(
            "who makes a folder flushes its name before the journal has its own, and "
            "SQLite flushes the working dir with the first frame of a WAL"
        ),
        also=(
            (
                "journal/upgrade.py",
                """\
    home.disk.flush_folder(home.working)
    _remove_leftovers""",
                "    _remove_leftovers",
            ),
        ),
    ),
    Mutant(
        "zeros ahead are cut before a file is published",
        "publish.py",
        """\
            staged.cut(claim.size)
""",
        "",
        ("tests/crash/test_zeros_ahead.py",),
    ),
    Mutant(
        "parents of a one-segment file are flushed",
        "publish.py",
        """\
                    staged.flush()
                    self._flush_parents(parents)
""",
        """\
                    staged.flush()
""",
        ("brief deep one/segment",),
    ),
    Mutant(
        "level none flushes the file of a transfer that was promised",
        "publish.py",
        "flushed = self._keeps or row.durable_segments > 0",
        "flushed = self._keeps",
        ("brief finished below/segment",),
    ),
    Mutant(
        "level none publishes a promised transfer durably",
        "publish.py",
        """\
        if self._keeps or row.publish_flushed:
            # Otherwise""",
        """\
        if self._keeps:
            # Otherwise""",
        ("brief finished below/segment",),
    ),
    Mutant(
        "level none flushes the name of a promised transfer",
        "publish.py",
        "careful = self._keeps or row.publish_flushed",
        "careful = self._keeps",
        ("brief finished below/segment",),
    ),
    Mutant(
        "a folder is remembered as flushed after its flush",
        "publish.py",
        """\
                self._home.flush_folder(above)
                self._remember(key, below)""",
        """\
                self._remember(key, below)
                self._home.flush_folder(above)""",
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "a flushed folder's number is not used again",
        "publish.py",
        '        pin = self._disk.open_folder(".", dir_fd=folder)',
        '        pin = self._disk.open_folder(".", dir_fd=self._home.storage)',
        ("tests/crash/test_folders.py",),
    ),
    Mutant(
        "a failed flush of a renamed file forgets its row",
        "publish.py",
        "self._flush_file(place[-1], parents.folder, lambda: self._records.delete(row, deadline))",
        "self._flush_file(place[-1], parents.folder, lambda: None)",
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "a failed flush of a published file forgets its completion",
        "repeats.py",
        "done, lambda: self._records.forget_completions([key], deadline)",
        "done, lambda: None",
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "an unflushed file is read in another boot",
        "publish.py",
        "if as_published and not done.durable and not self._home.is_this_boot(done.boot):",
        "if False:",
        ("brief/none", "brief repeats/segment"),
    ),
    Mutant(
        "a file whose row came meanwhile is no orphan",
        "housekeeping.py",
        "if held and self._records.by_staging(name, deadline) is None:",
        "if held:",
        ("tests/crash/test_orphans.py",),
    ),
    Mutant(
        "flush of the hidden staging folder's name",
        "home.py",
        """\
            self.disk.flush_folder(hidden)
            self.disk.flush_folder(self.storage)
            self._hidden""",
        "            self._hidden",
        ("other file system/segment", "--opening"),
    ),
]
