"""What ``check`` found, mended: under the locks that a worker takes, and nothing acknowledged goes.

A finding is of a moment ago, so what it says is looked at again first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from stat import S_IMODE, S_ISDIR, S_ISLNK

from txstore.checks import Finding
from txstore.deadline import Deadline
from txstore.local.clock import Call
from txstore.local.files.folders import JOURNAL, TEMPORARY_MARKER
from txstore.local.files.home import Home
from txstore.local.files.staging import Staging
from txstore.local.housekeeping import Housekeeping
from txstore.local.journal.making import TEMPORARY
from txstore.local.journal.records import Records
from txstore.local.journal.upgrade import exclusive
from txstore.local.locks import Lock
from txstore.local.looking.surroundings import is_usable
from txstore.protocol.names import HIDDEN

_OTHERS, _USED = 0o007, 0o660


class Repair:
    """Mends findings for one manager, in whose opening much is mended already.  Thread-safe."""

    def __init__(
        self,
        home: Home,
        journal_lock: Lock,
        staging: Staging,
        records: Records,
        housekeeping: Housekeeping,
        take_up: Callable[[str, Deadline], object],
    ) -> None:
        """:param take_up: settles a transfer; its staging file is its own then"""
        self._home, self._disk, self._journal_lock = home, home.disk, journal_lock
        self._staging, self._records, self._housekeeping = staging, records, housekeeping
        self._take_up = take_up
        self._ways: dict[str, Callable[[Finding, Call], bool]] = {
            "journal-index": self._make_indexes_anew,
            "journal-linked": self._is_journal_alone,
            "leftover": self._remove_leftover,
            "marker-missing": self._is_marked,
            "open-to-others": self._shut_others_out,
            "orphan": self._remove_orphan,
            "shut-to-workers": self._let_workers_in,
            "transfer-linked": self._part_from_link,
        }

    def mend(self, found: Finding, call: Call) -> bool:
        """Mend what was found; ``False``: it is not for this, or could not be mended now."""
        way = self._ways.get(found.kind)
        return way is not None and way(found, call)

    def _make_indexes_anew(self, _found: Finding, call: Call) -> bool:
        home = self._home
        with (
            self._journal_lock.held(call),
            exclusive(home.disk, home.journal_path, home.working) as connection,
        ):
            connection.execute("REINDEX")
        self._records.flush(call)
        return True

    def _is_journal_alone(self, _found: Finding, _call: Call) -> bool:
        return self._disk.stat(JOURNAL, dir_fd=self._home.working).st_nlink == 1

    def _is_marked(self, _found: Finding, _call: Call) -> bool:
        return self._home.read_marker() is not None

    def _remove_leftover(self, found: Finding, call: Call) -> bool:
        folder, name = os.path.split(str(found.facts["path"]))
        temporary = {self._home.working_dir: TEMPORARY, self._hidden: TEMPORARY_MARKER}.get(folder)
        if temporary is None or not temporary.match(name):
            return False
        fd = self._disk.open_folder(folder)
        try:
            with self._journal_lock.held(call):  # nobody is making it
                self._disk.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return True  # opening the store did it
        finally:
            self._disk.close(fd)
        return True

    def _shut_others_out(self, found: Finding, _call: Call) -> bool:
        path, mode = self._own(found)
        if path is None:
            return False
        allowed = int(str(found.facts["allowed"]))
        self._disk.chmod_folder(path, S_IMODE(mode) & ~_OTHERS | allowed & mode)
        return True

    def _let_workers_in(self, found: Finding, _call: Call) -> bool:
        path, mode = self._own(found)
        if path is None:
            return False
        wanted = self._disk.stat(self._home.journal_path).st_mode & _USED
        # Whoever may read a file may enter its folder.
        enter = (wanted & 0o440) >> 2 if S_ISDIR(mode) else 0
        self._disk.chmod_folder(path, S_IMODE(mode) | wanted | enter)
        return is_usable(self._disk.stat(path), self._disk.stat(self._home.journal_path))

    def _own(self, found: Finding) -> tuple[str | None, int]:
        """Path and mode of one of the store's own files or folders; ``None``: it is none."""
        path = str(found.facts["path"])
        folder, _ = os.path.split(os.path.normpath(path))
        if folder not in (self._home.working_dir, self._home.locks_path, self._hidden):
            return None, 0
        mode = self._disk.stat(path).st_mode
        return (None if S_ISLNK(mode) else path), mode

    @property
    def _hidden(self) -> str:
        return os.path.join(self._home.storage_dir, HIDDEN)

    def _remove_orphan(self, found: Finding, call: Call) -> bool:
        name = str(found.facts["name"])
        self._housekeeping.remove_orphan(name, call)
        return not self._staging.has(name)

    def _part_from_link(self, found: Finding, call: Call) -> bool:
        file_id = str(found.facts["file_id"])
        self._take_up(file_id, call)
        row = self._records.find(file_id, call)
        if row is None:
            return True
        return self._disk.stat(self._home.staging_path(row.staging)).st_nlink == 1
