"""What one look at a store has open."""

from __future__ import annotations

from txstore.deadline import Deadline
from txstore.local.files.places import Places
from txstore.local.looking.found import Found
from txstore.local.looking.locks import SharedLocks
from txstore.local.looking.reader import JournalReader
from txstore.local.looking.records import SeenRecords


class Look:
    """What one look at a store has open.  For one thread.

    :param timeout: seconds that a worker who is busy with something is waited for
    """

    def __init__(self, found: Found, locks: SharedLocks, timeout: float) -> None:
        self.found, self.disk, self.locks, self.timeout = found, found.disk, locks, timeout
        self.reader = JournalReader(found.disk, found.journal_path, locks)
        self.records = SeenRecords(self.reader)
        self.places = Places(found.disk, found.storage_dir, found.storage, found.own_folders())

    def deadline(self) -> Deadline:
        """For the next wait."""
        return Deadline(self.timeout)
