"""The mutants: what is taken away, where, and where it is hunted."""

from __future__ import annotations

from crash.mutants import Mutant

MUTANTS = [
    Mutant(
        "flush of a first segment's bytes",
        "append.py",
        """\
                    staged.flush()
                    self._staging.flush_folder(staged.name)""",
        "                    self._staging.flush_folder(staged.name)",
        ("brief/segment",),
    ),
    Mutant(
        "flush of the staging file's name",
        "append.py",
        """\
                    staged.flush()
                    self._staging.flush_folder(staged.name)""",
        "                    staged.flush()",
        ("brief/segment",),
    ),
    Mutant(
        "flush of the journal after a first segment",
        "append.py",
        """\
            if durable:
                self._records.flush(deadline)
""",
        "",
        ("brief/segment",),
    ),
    Mutant(
        "flush of a later segment's bytes",
        "append.py",
        """\
        staged.flush()
        if old.durable_segments == 0:""",
        "        if old.durable_segments == 0:",
        ("one transfer/segment",),
    ),
    Mutant(
        "flush of the journal after a later segment",
        "append.py",
        """\
        staged.row = durable
        self._records.flush(deadline)""",
        "        staged.row = durable",
        ("one transfer/segment",),
    ),
    Mutant(
        "flush of a name that a lower level left unflushed",
        "append.py",
        """\
        if old.durable_segments == 0:
            self._staging.flush_folder(staged.name)
""",
        "",
        ("brief mixed/segment",),
    ),
    Mutant(
        "a repeat makes durable what it rests on",
        "append.py",
        """\
        else:
            self._record_durably(row, row.touched(at), staged, deadline)""",
        """\
        else:
            self._records.flush(deadline)""",
        ("brief mixed/segment",),
    ),
    Mutant(
        "flush of a finished file's bytes",
        "publish.py",
        """\
            if flushed:
                staged.flush_all()
""",
        "",
        ("brief/segment",),
    ),
    Mutant(
        "flush of a finished file's mode",
        "publish.py",
        """\
                staged.flush_all()
""",
        """\
                staged.flush()
""",
        ("brief/segment",),
    ),
    Mutant(
        "parents are durable before the rename",
        "publish.py",
        """\
            self._flush_parents(parents)
            # The rename takes""",
        "            # The rename takes",
        ("brief/segment",),
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
            self._disk.flush_folder(parents.folder)
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
            "a staging file's name that comes back leads to the published file, or "
            "to none of a row's: recovery sees the former by its inode, and the lat"
            "ter is swept as an orphan"
        ),
    ),
    Mutant(
        "flush of the journal after a completion",
        "publish.py",
        """\
            raise self._taken_over(row)
        if self._keeps:
            self._records.flush(deadline)

    def standing""",
        """\
            raise self._taken_over(row)

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
                self._disk.flush_folder(parents.folder)
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
            self._disk.flush_folder(parents.folder)

    def look""",
        """\
            self._flush_parents(parents)
            self._disk.flush_folder(parents.folder)

    def look""",
        ("brief repeats/segment",),
    ),
    Mutant(
        "flush of a published name for a repeat",
        "publish.py",
        """\
            self._flush_file(place[-1], parents.folder, forget)
            self._flush_parents(parents)
            self._disk.flush_folder(parents.folder)

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
        "flush of the journal before cancelled bytes go",
        "recovery.py",
        """\
        if self._keeps:
            self._records.flush(deadline)
        self._staging.discard(row.staging)
        return True""",
        """\
        self._staging.discard(row.staging)
        return True""",
        ("brief cancelled/segment",),
        survives=(
            "the answer to a cancel flushes the journal itself; until then a row th"
            "at comes back without its bytes is dropped, as was asked"
        ),
    ),
    Mutant(
        "a cancel makes durable what another dropped",
        "store.py",
        """\
            # Also where there was nothing to drop: who dropped it may not have flushed.
            self._records.flush(deadline)
        else:""",
        """\
            pass
        else:""",
        ("brief mixed/segment",),
    ),
    Mutant(
        "a cancelled row goes before its bytes",
        "recovery.py",
        """\
        if not self._records.delete(row, deadline):
            return False
""",
        """\
        self._staging.remove(row.staging)
        if not self._records.delete(row, deadline):
            return False
""",
        ("brief cancelled/segment",),
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
        also=(
            (
                "journal/upgrade.py",
                """\
    home.disk.flush_folder(home.working)
    _remove_leftovers""",
                "    _remove_leftovers",
            ),
        ),
        survives="who makes a folder flushes its name before the journal has its own, and SQLite"
        " flushes the working dir with the first frame of a WAL",
    ),
    Mutant(
        "flush of a new journal",
        "journal/upgrade.py",
        """\
        home.disk.flush(fd)
""",
        "",
        ("brief/segment", "--opening"),
    ),
    Mutant(
        "flush of a new journal's name",
        "journal/upgrade.py",
        """\
    home.disk.flush_folder(home.working)
    home.disk.unlink(temporary""",
        "    home.disk.unlink(temporary",
        ("brief/segment", "--opening"),
    ),
    Mutant(
        "flush of a journal's name that another worker made",
        "journal/upgrade.py",
        """\
    home.disk.flush_folder(home.working)
    _remove_leftovers""",
        "    _remove_leftovers",
        ("brief/segment", "--opening", "--again"),
        survives="the store's folders are flushed before the first answer, too",
    ),
    Mutant(
        "bytes past the journal's offset are cut",
        "staged.py",
        """\
        if self.size > offset and self.size != self._zeros_end:
            self.cut(offset)
""",
        "",
        ("one transfer/segment", "cancelled/segment"),
    ),
    Mutant(
        "staged bytes are verified in another boot",
        "recovery.py",
        "        if staged.inode == row.inode and (same_boot or row.durable):",
        "        if staged.inode == row.inode:",
        ("one transfer/file", "one transfer/none"),
    ),
    Mutant(
        "what does not verify is given up",
        "recovery.py",
        """\
            if not verified:
                staged.close()
                return self._go_back(row, at, deadline)
            fit""",
        "            fit",
        ("one transfer/file", "one transfer/none"),
    ),
    Mutant(
        "an intent's bytes are verified in another boot",
        "recovery.py",
        "        return bool(same_boot or row.publish_flushed)",
        "        return True",
        ("brief/none", "brief replaced/none"),
    ),
    Mutant(
        "a staging file with a second name is not written",
        "staging.py",
        "alone = found.st_nlink == 1",
        "alone = True",
        ("brief/segment", "brief/none"),
        survives=(
            'both names stay only where the intent was lost, which is at level "non'
            'e"; there a power loss may damage a stored file'
        ),
    ),
    Mutant(
        "an older intent for a name is settled first",
        "recovery.py",
        """\
        for row in self._records.by_place(place_bytes(place), deadline):
            self._settle_held(row, at, deadline)""",
        "        return",
        ("tests/crash/test_left_intent.py",),
    ),
    Mutant(
        "an intent is carried out only over what it was for",
        "recovery.py",
        "if self._publisher.standing(place, parents) != row.publish_over:",
        "if False:",
        ("tests/crash/test_left_intent.py",),
    ),
    Mutant(
        "the lock of a transfer",
        "locks.py",
        "return _Held(self._transfers[stripe_of(file_id.encode())], deadline)",
        (
            "return _Held(Lock(self.journal._disk, '', self.journal._folder_fd, os."
            "urandom(8).hex(), 0o600), deadline)"
        ),
        ("tests/crash/test_together.py",),
    ),
    Mutant(
        "the lock of a name",
        "locks.py",
        "return _Held(self._names[stripe_of(place)], deadline)",
        (
            "return _Held(Lock(self.journal._disk, '', self.journal._folder_fd, os."
            "urandom(8).hex(), 0o600), deadline)"
        ),
        ("tests/crash/test_together.py",),
    ),
    Mutant(
        "the lock of the journal",
        "journal/engine.py",
        "with _Using(self, deadline), self._lock.held(deadline):",
        "with _Using(self, deadline):",
        ("tests/crash/test_together.py",),
        survives=(
            "SQLite's own lock keeps two commits apart as well; the journal lock is"
            " there for a fault of SQLite before 3.51.3, in which a checkpoint race"
            "s a commit"
        ),
    ),
    Mutant(
        "the guard in a row's UPDATE",
        "journal/records.py",
        'transfer.c.change == _p("change"),',
        "",
        ("tests/crash/test_together.py",),
        survives=(
            "the transfer's and the name's lock keep two workers off one row; the g"
            "uard is for those who do not see each other's locks, and nobody is tol"
            "d to do that"
        ),
    ),
    Mutant(
        "others' staged bytes are written anew before a flush",
        "recovery.py",
        ("            whole = staged.hash_to(hasher, row.offset, rewrite_from=row.durable_offset)"),
        "            whole = staged.hash_to(hasher, row.offset)",
        ("all sorts/file", "--faults", "flush_all"),
    ),
    Mutant(
        "the journal's log is written anew after a failed flush",
        "journal/wal.py",
        """\
                offset += self._disk.pwrite(self.fd, part, offset)
            self._disk.flush(self.fd)""",
        """\
                offset += len(part)
            self._disk.flush(self.fd)""",
        ("all sorts/segment", "--faults", "flush"),
    ),
    Mutant(
        "a failed flush of the journal is an error",
        "journal/wal.py",
        """\
                    self.proven = False
                    raise
""",
        """\
                    pass
""",
        ("all sorts/segment", "--faults", "flush"),
    ),
]
