"""Mutants of the bytes of unfinished transfers, and what is believed of them."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

STAGED = [
    Mutant(
        "flush of a first segment's bytes",
        (Patch("Appender.begin", "staged.flush()", ""),),
        ("brief/segment",),
    ),
    Mutant(
        "flush of the staging file's name",
        (Patch("Appender.begin", "self._staging.flush_folder(staged.name)", ""),),
        ("brief/segment",),
    ),
    Mutant(
        "flush of the journal after a first segment",
        (
            Patch(
                "Appender.begin",
                """\
                if durable:
                    self._records.flush(call)""",
                "",
            ),
        ),
        ("brief/segment",),
    ),
    Mutant(
        "flush of a later segment's bytes",
        (
            Patch(
                "Appender._record_durably",
                "staged.flush()",
                "",
            ),
        ),
        ("brief below in between/segment", "brief mixed/segment"),
    ),
    Mutant(
        "flush of the journal after a later segment",
        (Patch("Appender._record_durably", "self._records.flush(call)", ""),),
        ("brief below in between/segment", "brief mixed/segment"),
    ),
    Mutant(
        "flush of a name that a lower level left unflushed",
        (
            Patch(
                "Appender._record_durably",
                """\
                if old.durable_segments == 0:
                    self._staging.flush_folder(staged.name)""",
                "",
            ),
        ),
        ("brief mixed/segment",),
    ),
    Mutant(
        "a repeat makes durable what it rests on",
        (
            Patch(
                "Appender.repeat",
                """\
                self._record_durably(
                    row, staged, lambda: self._transfers.save(row, durable, call), call
                )""",
                "self._records.flush(call)",
            ),
        ),
        ("brief mixed/segment",),
    ),
    Mutant(
        "flush of the journal before cancelled bytes go",
        (
            Patch(
                "Transfers.discard",
                """\
                if self._keeps:
                    self._records.flush(call)""",
                "",
            ),
        ),
        ("brief cancelled/segment",),
    ),
    Mutant(
        "a cancelled row goes before its bytes",
        (
            Patch(
                "Transfers.drop",
                """\
                if not self._records.delete(row, call, event):
                    return False""",
                """\
                self._staging.remove(row.staging)
                if not self._records.delete(row, call, event):
                    return False""",
            ),
        ),
        ("brief cancelled/segment",),
    ),
    Mutant(
        "bytes past the journal's offset are cut",
        (
            Patch(
                "StagedFile.write",
                """\
                if self.size > offset and self.size != self._zeros_end:
                    self.cut(offset)""",
                "",
            ),
        ),
        ("tests/crash/test_zeros_ahead.py",),
    ),
    Mutant(
        "staged bytes are verified in another boot",
        (
            Patch(
                "judge",
                "durable or (same_boot and not copied)",
                "True",
            ),
        ),
        ("one transfer/file", "one transfer/none"),
    ),
    Mutant(
        "what does not verify is given up",
        (
            Patch(
                "Recovery._verify",
                """\
                if not verified:
                    if judge_unverified(facts) is Verdict.DAMAGED:
                        raise StagingDamagedError(
                            staged.path, row.file_id, "was replaced by another"
                        )
                    staged.close()
                    return self._go_back(row, call)""",
                "",
            ),
        ),
        ("one transfer/file", "one transfer/none"),
    ),
    Mutant(
        "an intent's bytes are verified in another boot",
        (
            Patch(
                "Intents._is_trusted",
                "bool(row.publish_flushed) or self._home.is_this_boot(row.written_boot)",
                "True",
            ),
        ),
        ("brief/none", "brief replaced/none"),
    ),
    Mutant(
        "a staging file with a second name is not written",
        (Patch("Staging.open", "found.st_nlink == 1", "True"),),
        ("brief/segment", "brief/none"),
        survives=(
            'both names stay only where the intent was lost, which is at level "none"; there a '
            "power loss may damage a stored file"
        ),
    ),
    Mutant(
        "an older intent for a name is settled first",
        (
            Patch(
                "Intents.settle_place",
                """\
                for row in self._records.by_place(place_bytes(place), call):
                    self._settle_held(row, call)""",
                "return",
            ),
        ),
        ("tests/crash/test_left_intent.py",),
    ),
    Mutant(
        "an intent is carried out only over what it was for",
        (
            Patch(
                "Intents._settle_held",
                "self._publisher.standing(place, parents) != row.publish_over",
                "False",
            ),
        ),
        ("tests/crash/test_left_intent.py",),
    ),
    Mutant(
        "others' staged bytes are written anew before a flush",
        (
            Patch(
                "Recovery.make_own",
                "staged.hash_to(hasher, row.offset, rewrite_from=row.durable_offset)",
                "staged.hash_to(hasher, row.offset)",
            ),
        ),
        ("all sorts/file", "--faults", "flush_all"),
    ),
    Mutant(
        "who goes on with a row in doubt flushes it",
        (
            Patch(
                "Appender.will_flush",
                """\
                if row.doubted:
                    return True""",
                "",
            ),
        ),
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "the durable point at level file",
        (
            Patch(
                "Appender._is_too_much",
                "self._level.keeps_files and at_stake >= _DURABLE_POINT",
                "False",
            ),
        ),
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "a repeat at level file flushes a durable point",
        (Patch("Appender.repeat", "self._level.keeps_files", "self._level.keeps_segments"),),
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "a repeat at level file makes a durable point",
        (
            Patch(
                "Appender.repeat",
                "self._level.keeps_segments or self._is_too_much(row, 0)",
                "self._level.keeps_segments",
            ),
        ),
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "an unknown boot is another one",
        (Patch("Folders.is_this_boot", "boot == self.boot != ''", "boot == self.boot"),),
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "what is gone back to is verified",
        (
            Patch(
                "Recovery._go_back",
                """\
                if fits:
                    self._transfers.save(row, back, call)""",
                """\
                fits = True
                if fits:
                    self._transfers.save(row, back, call)""",
            ),
        ),
        ("tests/crash/test_going_back.py",),
    ),
    Mutant(
        "a failed flush puts its transfer in doubt",
        (Patch("Transfers.doubt", "not row.durable", "False"),),
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "what an older version may have promised is published durably",
        (
            Patch(
                "Publisher.stage_last",
                "self._keeps or row.durable_segments > 0 or row.doubted > 0",
                "self._keeps or row.durable_segments > 0",
            ),
        ),
        ("tests/crash/test_upgrading.py",),
    ),
    Mutant(
        "a failed flush of the log is made good at once",
        (
            Patch(
                "Journal.flush",
                """\
                if self.connection.wal is wal:
                    wal.write_anew()""",
                "pass",
            ),
        ),
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "a failed flush of an intent's bytes puts its transfer in doubt",
        (
            Patch(
                "Intents._make_fit",
                "self._transfers.flush(row, staged.flush_all, call)",
                "staged.flush_all()",
            ),
        ),
        ("tests/crash/test_failed_flushes.py",),
    ),
    Mutant(
        "what is copied is verified where others staged it",
        (
            Patch(
                "judge",
                "same_boot and not copied",
                "same_boot",
            ),
        ),
        ("tests/local/test_backups.py",),
    ),
    Mutant(
        "a copy of another user's file is flushed",
        (
            Patch(
                "Transfers.go_on_with_copy",
                """\
                copy.flush()
                self._staging.flush_folder(copy.name)""",
                "pass",
            ),
        ),
        ("tests/crash/test_take_over.py",),
    ),
    Mutant(
        "a copy is recorded durably before the original goes",
        (Patch("Transfers.go_on_with_copy", "self._records.flush(call)", "pass"),),
        ("tests/crash/test_take_over.py",),
    ),
]
