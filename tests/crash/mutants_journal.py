"""Mutants of the journal and the locks."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

#: A lock that everybody has at once.
_NOBODYS = """\
class Nobodys(TransferLock):
    def __init__(self, like):
        super().__init__(like._file, 0)

    def acquire(self, deadline):
        self.begin_turn()

    def release(self):
        pass

    def check_in_place(self):
        pass

"""

JOURNAL = [
    Mutant(
        "flush of a new journal",
        (Patch("_new_file", "home.disk.flush(fd)", ""),),
        ("brief/segment", "--opening"),
    ),
    Mutant(
        "flush of a new journal's name",
        (Patch("make_new", "home.disk.flush_folder(home.working)", ""),),
        ("brief/segment", "--opening"),
    ),
    Mutant(
        "flush of a journal's name that another worker made",
        (Patch("_make_current", "home.disk.flush_folder(home.working)", ""),),
        ("brief/segment", "--opening", "--again"),
        survives="the store's folders are flushed before the first answer, too",
    ),
    Mutant(
        "the lock of a transfer",
        (
            Patch(
                "Locks.transfer",
                "return self.stripe(stripe_of(file_id.encode()))",
                f"{_NOBODYS}return Nobodys(self.journal)",
            ),
        ),
        ("tests/crash/test_together.py",),
    ),
    Mutant(
        "the lock of a name",
        (
            Patch(
                "Locks.name",
                "return lock",
                f"{_NOBODYS}return Nobodys(self.journal)",
            ),
        ),
        ("tests/crash/test_together.py",),
    ),
    Mutant(
        "the lock of the journal",
        (
            Patch(
                "Locks.__init__",
                "self.journal = Lock(of_journal, JOURNAL_BYTE, 'journal')",
                f"{_NOBODYS}self.journal = Nobodys(Lock(of_journal, JOURNAL_BYTE, 'journal'))",
            ),
        ),
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the guard in a row's UPDATE",
        (Patch("_THE_VERSION", "transfer.c.change == _p('change')", "_p('change').is_not(None)"),),
        ("tests/crash/test_together.py",),
        survives=(
            "the transfer's and the name's lock keep two workers off one row; the guard is for "
            "those who do not see each other's locks, and nobody is told to do that"
        ),
    ),
    Mutant(
        "the journal's log is written anew after a failed flush",
        (Patch("WalFile.write_anew", "self._disk.pwrite(self.fd, part, offset)", "len(part)"),),
        ("all sorts/segment", "--faults", "flush"),
    ),
    Mutant(
        "a failed flush of the journal is an error",
        (
            Patch(
                "WalFile.flush",
                """\
                self.doubt()
                raise""",
                "pass",
            ),
        ),
        ("all sorts/segment", "--faults", "flush"),
    ),
    Mutant(
        "a token that could not be written is taken back",
        (Patch("TransferLock._taken", "self._disk.truncate(fd, 0)", "pass"),),
        ("tests/crash/test_rows_after_bytes.py",),
    ),
    Mutant(
        "a flush that began before a commit does not serve it",
        (
            Patch(
                "WalFile.flush",
                "needed = self._begun + 1",
                "needed = self._begun + (self._begun == self._succeeded)",
            ),
        ),
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the log is settled before a checkpoint",
        (
            Patch(
                "Connection.settle_wal",
                """\
                if wal is not None and (not (wal.proven and wal.flush(deadline, self._path))):
                    wal.write_anew()""",
                "return",
            ),
        ),
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the log's descriptor is proven before its first flush",
        (Patch("WalFile.__init__", "self.proven = False", "self.proven = True"),),
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the log is written anew only under the journal lock",
        (
            Patch(
                "Connection.close",
                "locked",
                "True",
            ),
        ),
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the connection is closed after an error",
        (Patch("Journal._transaction", "connection.close()", ""),),
        ("all sorts/segment", "--faults", "commit"),
    ),
    Mutant(
        "an upgrade is one transaction",
        (
            Patch(
                "exclusive",
                "raw.execute('BEGIN IMMEDIATE')",
                """\
                raw.execute('BEGIN IMMEDIATE')
                raw.execute('COMMIT')""",
            ),
        ),
        ("tests/crash/test_upgrading.py",),
    ),
]
