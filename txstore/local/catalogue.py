"""The catalogue of stored files, kept: rows come when completions go, and go with their files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

from txstore.errors import JournalError
from txstore.local import clock
from txstore.local.clock import Call, Moment
from txstore.local.files.home import Home
from txstore.local.files.machine import NO_SPACE
from txstore.local.journal.catalogue_records import CatalogueRecords, Listed

#: Seconds for which a row is kept whose file is not there any more, so that it is told.
_TOLD_FOR = 7 * 86400.0
#: Rows that are looked at for each that came: with two, those without a file never become many more
#: than those with one.
_FOR_EACH = 2
#: Rows that are looked at where nobody waits for an answer.
_MANY = 1024


class WithFiles:
    """Which stored files are there, for one manager."""

    def __init__(self, home: Home) -> None:
        self._home, self._disk = home, home.disk

    def has(self, place: bytes, size: int) -> bool:
        """Whether a file is at its place still, as far as its size tells.

        In a restored backup files have other inodes, and perhaps other times, and it is just there
        that it has to be known what they should be.  Links that were put in its way since are
        followed: only whether a row stays depends on it.
        """
        try:
            found = self._disk.stat(os.fsdecode(place), dir_fd=self._home.storage)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # nobody may look there, or the disk failed: that says nothing of it
        return found.st_size == size


class Sweeping:
    """Looks which rows have lost their files, for one manager; by one thread at a time.

    :ivar lifetime: seconds for which a row without its file is kept
    """

    lifetime = _TOLD_FOR

    def __init__(self, records: CatalogueRecords, files: WithFiles) -> None:
        self._records, self._files = records, files
        self._after = self._last = -1

    def some(self, among: int, seen: float, call: Call) -> int:
        """Look at some rows, going on where the last slice ended.

        :param among: how many rows may have come in a slice
        :param seen: see ``clock.cutoff``
        :return: how many rows went, ``among`` at most
        """
        before, self._last = self._last, self._records.last(call)
        if self._after < 0:
            # Anywhere: each of many short processes would look at the first ones alone.
            self._after = int(secrets.token_hex(8), 16) % (self._last + 1)
        came = max(0, self._last - before) if before >= 0 else 0
        return min(among, self._look(_FOR_EACH * min(among, came + 1), seen, call))

    def all(self, seen: float, call: Call) -> Iterator[int]:
        """Look at many of them."""
        yield self._look(_MANY, seen, call)

    def warn(self, seen: float, call: Call) -> None:
        """Nothing."""

    def _look(self, limit: int, seen: float, call: Call) -> int:
        rows = self._records.some(max(self._after, 0), limit, call)
        self._after = rows[-1].key if len(rows) == limit else 0
        over = clock.cutoff(self.lifetime, call.at, seen)
        missed, back, gone = [], [], []
        for row in rows:
            if self._files.has(row.place, row.size):
                if row.missed is not None:
                    back.append(row)
            elif row.missed is None or _is_ahead(row.missed, call.at):
                missed.append(row)
            elif over.is_over(row.missed):
                gone.append(row)
        return self._note(missed, back, gone, call)

    def _note(
        self, missed: list[Listed], back: list[Listed], gone: list[Listed], call: Call
    ) -> int:
        try:
            self._records.note(missed, back, gone, call.at, call)
        except JournalError as error:
            if error.errno not in NO_SPACE:
                raise
            return 0  # nothing waits for it
        return len(gone)


def _is_ahead(then: Moment, at: Moment) -> bool:
    """Whether it was noted while the wall clock was ahead, in another boot."""
    return then.boot != at.boot and then.wall > at.wall
