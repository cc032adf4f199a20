"""A store of one machine, looked at without writing a byte."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

from txstore.checks import Finding
from txstore.local.files.disk import Disk
from txstore.local.files.folders import JOURNAL
from txstore.local.journal.event_records import EventRecords
from txstore.local.journal.journal import Journal
from txstore.local.looking.check import check, left_without_journal
from txstore.local.looking.found import Found
from txstore.local.looking.locks import SharedLocks
from txstore.local.looking.look import Look
from txstore.local.status import of_all
from txstore.protocol.status import Totals


class LocalInspector:
    """Looks at a store.  Holds nothing open between calls; safe to use from any thread.

    :raises FileNotFoundError: there is no store
    """

    def __init__(
        self,
        disk: Disk,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None,
        lock_timeout: float,
    ) -> None:
        self._disk, self._timeout = disk, lock_timeout
        found = Found(disk, storage_dir, working_dir)
        self.storage_dir, self.working_dir = found.storage_dir, found.working_dir
        try:
            if not found.has(JOURNAL) and left_without_journal(found) is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), found.journal_path)
        finally:
            found.close()

    @contextmanager
    def _look(self) -> Iterator[Look]:
        with ExitStack() as opened:
            found = Found(self._disk, self.storage_dir, self.working_dir)
            opened.callback(found.close)
            locks = SharedLocks(self._disk, found.working, found.locks_path)
            opened.callback(locks.close)
            yield Look(found, locks, self._timeout)

    def totals(self) -> Totals:
        """What there is in all."""
        with self._look() as look:
            deadline = look.deadline()
            events = EventRecords(cast(Journal, look.reader), 1)
            behind = [one.behind for one in events.consumers(deadline)]
            transfers = look.records.totals(deadline)
            free, _ = self._disk.space(look.found.working)
            return of_all(transfers, behind, time.time(), free)

    def check(self, *, deep: bool) -> Iterator[Finding]:
        """What is wrong with the store, part by part.

        :param deep: read all bytes, not only those of which nothing else tells
        """
        with self._look() as look:
            yield from check(look, deep=deep)
