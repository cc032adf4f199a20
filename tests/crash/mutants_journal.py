"""Mutants of the journal and the locks."""

from __future__ import annotations

from crash.mutants import Mutant

JOURNAL = [
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
        "the lock of a transfer",
        "locks.py",
        "return _Held(self._transfers[stripe_of(file_id.encode())], deadline)",
        "return _Held(_Nobody(self.journal), deadline)",
        ("tests/crash/test_together.py",),
        also=(
            (
                "locks.py",
                "def stripe_of(",
                """\
class _Nobody(TransferLock):
    def __init__(self, like):
        super().__init__(like._disk, "", like._folder_fd, "", 0o600)

    def acquire(self, deadline):
        self.begin_turn()

    def release(self):
        pass

    def verify(self):
        pass

    def note_durable(self, staging, change):
        pass


def stripe_of(""",
            ),
        ),
    ),
    Mutant(
        "the lock of a name",
        "locks.py",
        "return _Held(self._names[stripe_of(place)], deadline)",
        "return _Held(_Nobody(self.journal), deadline)",
        ("tests/crash/test_together.py",),
        also=(
            (
                "locks.py",
                "def stripe_of(",
                """\
class _Nobody(TransferLock):
    def __init__(self, like):
        super().__init__(like._disk, "", like._folder_fd, "", 0o600)

    def acquire(self, deadline):
        self.begin_turn()

    def release(self):
        pass

    def verify(self):
        pass

    def note_durable(self, staging, change):
        pass


def stripe_of(""",
            ),
        ),
    ),
    Mutant(
        "the lock of the journal",
        "locks.py",
        'self.journal = Lock(*where, "journal", mode)',
        'self.journal = _Nobody(Lock(*where, "journal", mode))',
        ("tests/crash/test_journal_log.py",),
        also=(
            (
                "locks.py",
                "def stripe_of(",
                """\
class _Nobody(TransferLock):
    def __init__(self, like):
        super().__init__(like._disk, "", like._folder_fd, "", 0o600)

    def acquire(self, deadline):
        self.begin_turn()

    def release(self):
        pass

    def verify(self):
        pass

    def note_durable(self, staging, change):
        pass


def stripe_of(""",
            ),
        ),
    ),
    Mutant(
        "the guard in a row's UPDATE",
        "journal/records.py",
        'transfer.c.change == _p("change"),',
        '_p("change").is_not(None),',
        ("tests/crash/test_together.py",),
        survives=(
            "the transfer's and the name's lock keep two workers off one row; the guard "
            "is for those who do not see each other's locks, and nobody is told to do "
            "that"
        ),
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
    Mutant(
        "a note that could not be written is taken back",
        "locks.py",
        """\
        if not noted:
            self._disk.truncate(self._fd, 0)
""",
        "",
        ("tests/crash/test_overlapping_flushes.py",),
    ),
    Mutant(
        "a token that could not be written is taken back",
        "locks.py",
        """\
                # not take it for its own still.
                self._disk.truncate(fd, 0)""",
        """\
                # not take it for its own still.
                pass""",
        ("tests/crash/test_overlapping_flushes.py",),
    ),
    Mutant(
        "a flush that began before a commit does not serve it",
        "journal/wal.py",
        "needed = self._begun + 1",
        "needed = self._begun + (not self._flushing.locked())",
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the log is settled before a checkpoint",
        "journal/connection.py",
        """\
        if wal is not None and not (wal.proven and wal.flush(deadline, self._path)):
            wal.write_anew()""",
        "        return",
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the log's descriptor is proven before its first flush",
        "journal/wal.py",
        "        self.inode = (found.st_dev, found.st_ino)",
        """\
        self.inode = (found.st_dev, found.st_ino)
        self.proven = True""",
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the log is written anew only under the journal lock",
        "journal/connection.py",
        """\
            if locked:
                self.settle_wal()""",
        "            self.settle_wal()",
        ("tests/crash/test_journal_log.py",),
    ),
    Mutant(
        "the connection is closed after an error",
        "journal/engine.py",
        """\
            # one rolls back what was not committed.
            self._connection.close()
            raise""",
        """\
            # one rolls back what was not committed.
            raise""",
        ("all sorts/segment", "--faults", "commit"),
    ),
    Mutant(
        "an upgrade is one transaction",
        "journal/upgrade.py",
        '    connection.exec_driver_sql("BEGIN IMMEDIATE")',
        """\
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql("COMMIT")""",
        ("tests/crash/test_upgrading.py",),
    ),
]
