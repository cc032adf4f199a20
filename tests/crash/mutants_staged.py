"""Mutants of the bytes of unfinished transfers, and what is believed of them."""

from __future__ import annotations

from crash.mutants import Mutant

STAGED = [
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
        self._transfers.flush(old, staged.flush, at, deadline)
        if old.durable_segments == 0:""",
        "        if old.durable_segments == 0:",
        ("brief below in between/segment", "brief mixed/segment"),
    ),
    Mutant(
        "flush of the journal after a later segment",
        "append.py",
        """\
        staged.row = durable
        self._records.flush(deadline)""",
        "        staged.row = durable",
        ("brief below in between/segment", "brief mixed/segment"),
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
            self._record_durably(row, row.touched(at), staged, at, deadline)
        else:""",
        """\
            self._records.flush(deadline)
        else:""",
        ("brief mixed/segment",),
    ),
    Mutant(
        "flush of the journal before cancelled bytes go",
        "transfers.py",
        """\
        if self._keeps:
            self._records.flush(deadline)
        self._staging.discard(row.staging)
        return True""",
        """\
        self._staging.discard(row.staging)
        return True""",
        ("brief cancelled/segment",),
    ),
    Mutant(
        "a cancelled row goes before its bytes",
        "transfers.py",
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
        "bytes past the journal's offset are cut",
        "staged.py",
        """\
        if self.size > offset and self.size != self._zeros_end:
            self.cut(offset)
""",
        "",
        ("tests/crash/test_zeros_ahead.py",),
    ),
    Mutant(
        "staged bytes are verified in another boot",
        "recovery.py",
        "        if staged.inode == row.inode and (untouched or row.durable):",
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
        "intents.py",
        "        return bool(row.publish_flushed) or self._home.is_this_boot(row.written_boot)",
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
            'both names stay only where the intent was lost, which is at level "none"; '
            "there a power loss may damage a stored file"
        ),
    ),
    Mutant(
        "an older intent for a name is settled first",
        "intents.py",
        """\
        for row in self._records.by_place(place_bytes(place), deadline):
            self._settle_held(row, at, deadline)""",
        "        return",
        ("tests/crash/test_left_intent.py",),
    ),
    Mutant(
        "an intent is carried out only over what it was for",
        "intents.py",
        "if self._publisher.standing(place, parents) != row.publish_over:",
        "if False:",
        ("tests/crash/test_left_intent.py",),
    ),
    Mutant(
        "others' staged bytes are written anew before a flush",
        "recovery.py",
        "            whole = staged.hash_to(hasher, row.offset, rewrite_from=row.durable_offset)",
        "            whole = staged.hash_to(hasher, row.offset)",
        ("all sorts/file", "--faults", "flush_all"),
    ),
    Mutant(
        "an overlapped row says no more than its predecessor",
        "append.py",
        "overlapped = new._replace(overlapped=OVERLAPPED)",
        "overlapped = new.made_durable()._replace(overlapped=OVERLAPPED)",
        ("brief later/segment",),
    ),
    Mutant(
        "flush of an overlapped segment's bytes",
        "append.py",
        """\
        try:
            staged.flush()
        except OSError:""",
        """\
        try:
            pass
        except OSError:""",
        ("brief later/segment",),
    ),
    Mutant(
        "flush of the journal after an overlapped segment",
        "append.py",
        """\
            raise
        self._records.flush(deadline)
        lock.note""",
        """\
            raise
        lock.note""",
        ("brief later/segment",),
    ),
    Mutant(
        "rows overlap only on a durable predecessor",
        "append.py",
        "overlaps = durably and row.durable and size",
        "overlaps = durably and size",
        ("brief begun below/segment",),
    ),
    Mutant(
        "rows overlap only where their hash can be verified",
        "append.py",
        "elif overlaps and new.is_verifiable:",
        "elif overlaps:",
        ("tests/crash/test_overlapping_flushes.py",),
    ),
    Mutant(
        "who cannot know an overlapped row to be durable flushes it",
        "append.py",
        """\
        if row.overlapped:
            return True
        if request""",
        "        if request",
        ("tests/crash/test_overlapping_flushes.py",),
    ),
    Mutant(
        "the note comes after the flush of the bytes",
        "append.py",
        """\
        self._records.start_flush()
        try:
            staged.flush()""",
        """\
        self._records.start_flush()
        lock.note_durable(new.staging, new.change)
        try:
            staged.flush()""",
        ("tests/crash/test_overlapping_flushes.py",),
    ),
    Mutant(
        "the note comes after the flush of the journal",
        "append.py",
        """\
        self._records.flush(deadline)
        lock.note_durable(new.staging, new.change)""",
        """\
        lock.note_durable(new.staging, new.change)
        self._records.flush(deadline)""",
        ("tests/crash/test_overlapping_flushes.py",),
    ),
    Mutant(
        "a note of another boot takes no row back",
        "recovery.py",
        """\
        if same_boot and same_mount:
            # Its worker died""",
        """\
        if same_mount:
            # Its worker died""",
        ("brief later/segment",),
    ),
    Mutant(
        "a note of another mount takes no row back",
        "recovery.py",
        """\
        if same_boot and same_mount:
            # Its worker died""",
        """\
        if same_boot:
            # Its worker died""",
        ("tests/crash/test_overlapping_flushes.py",),
    ),
    Mutant(
        "a note of another boot is taken back",
        "recovery.py",
        """\
        lock.take_note_back()
""",
        "",
        ("tests/crash/test_overlapping_flushes.py",),
    ),
    Mutant(
        "a row later than the note goes back",
        "recovery.py",
        """\
            back = row.at_durable_point().touched(at)
            self._transfers.save(row, back, deadline)
            return back
        # A power""",
        """\
            return row
        # A power""",
        ("brief later/segment", "--again"),
        survives=(
            "the row is unknown then, whose bytes are read and staged anew before a "
            "flush; going back saves the reading"
        ),
    ),
    Mutant(
        "the durable point at level file",
        "append.py",
        "return self._level.keeps_files and at_stake >= _DURABLE_POINT",
        "return False",
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "a repeat at level file flushes a durable point",
        "append.py",
        "if row.durable and self._level.keeps_files:",
        "if row.durable and self._level.keeps_segments:",
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "a repeat at level file makes a durable point",
        "append.py",
        "elif self._level.keeps_segments or self._is_too_much(row, 0):",
        "elif self._level.keeps_segments:",
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "an unknown boot is another one",
        "home.py",
        'return boot == self.boot != ""',
        "return boot == self.boot",
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "what is gone back to is verified",
        "recovery.py",
        """\
                    if fits:
                        self._transfers.save""",
        """\
                    fits = True
                    if fits:
                        self._transfers.save""",
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "a failed flush puts its transfer in doubt",
        "transfers.py",
        "            if not row.durable:",
        "            if False:",
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "what an older version may have promised is published durably",
        "publish.py",
        "row.durable_segments > 0 or row.overlapped > 0",
        "row.durable_segments > 0",
        ("tests/crash/test_upgrading.py",),
    ),
    Mutant(
        "a failed flush of the log is made good at once",
        "journal/engine.py",
        """\
                    if self._connection.wal is wal:
                        wal.write_anew()""",
        "                    pass",
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "a failed flush of an intent's bytes puts its transfer in doubt",
        "intents.py",
        "                self._transfers.flush(row, staged.flush, at, deadline)",
        "                staged.flush()",
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "what is copied is verified where others staged it",
        "recovery.py",
        "        untouched = same_boot and (staged.writable or not row.is_verifiable)",
        "        untouched = same_boot",
        ("tests/test_backups.py",),
    ),
    Mutant(
        "a copy of another user's file is flushed",
        "recovery.py",
        """\
                copy.flush()
                self._staging.flush_folder(copy.name)
""",
        """\
                pass
""",
        ("tests/crash/test_take_over.py",),
    ),
    Mutant(
        "a copy is recorded durably before the original goes",
        "recovery.py",
        """\
                # A journal that went back would look for the file that is removed now.
                self._records.flush(deadline)""",
        "                pass",
        ("tests/crash/test_take_over.py",),
    ),
]
