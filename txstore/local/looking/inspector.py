"""A store of one machine, looked at without writing a byte."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

from txstore.backups import Backup, Tell
from txstore.checks import Finding, Verified, finding
from txstore.local.backup.backup import back_up
from txstore.local.files.disk import Disk
from txstore.local.files.folders import JOURNAL
from txstore.local.files.places import place_bytes
from txstore.local.journal.event_records import EventRecords
from txstore.local.journal.journal import Journal
from txstore.local.looking.check import check, left_without_journal
from txstore.local.looking.found import Found
from txstore.local.looking.locks import SharedLocks
from txstore.local.looking.look import Look
from txstore.local.looking.stored import StoredChecks
from txstore.local.status import of_all, page_of
from txstore.protocol.catalogue import Page, Reached
from txstore.protocol.names import NameRules
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

    def back_up(self, path: str, *, links: bool, tell: Tell) -> Backup:
        """Copy the store to where the copy is a store again; durable when it returns."""
        with self._look() as look:
            return back_up(look, path, links=links, tell=tell)

    def check(self, *, deep: bool) -> Iterator[Finding]:
        """What is wrong with the store, part by part.

        :param deep: read all bytes, not only those of which nothing else tells
        """
        with self._look() as look:
            yield from check(look, deep=deep)

    # --- stored files ------------------------------------------------------------------------

    def catalogue(self, after: str, limit: int) -> Page:
        """What is known of stored files: some of it, in the order of their places."""
        with self._look() as look:
            rows = look.records.catalogue.after(os.fsencode(after), limit, look.deadline())
            return page_of(rows, limit)

    def verify(self, after: str, reached: Reached) -> Iterator[Verified]:
        """Read the files of the catalogue, from after a place on."""
        with self._look() as look:
            yield from StoredChecks(look, deep=True, reached=reached).verify(os.fsencode(after))

    def verify_named(self, name: str, reached: Reached) -> Verified:
        """Read one file."""
        path = NameRules(self.storage_dir, self.working_dir).normalise(name, None)
        with self._look() as look:
            place = place_bytes(look.places.resolve(path, name=name, file_id=None))
            row = look.records.catalogue.at(place, look.deadline())
            if row is None:
                return Verified(path, None, finding("stored-unknown", name=path))
            return StoredChecks(look, deep=True, reached=reached).verified(row)
