"""A row that somebody changed who does not see our locks: nothing is damaged, nothing recorded."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from crew import segment
from seam import WatchedDisk
from support import journal_of

from txstore import FileStoreManager
from txstore.errors import TakenOverError


class Overtaken(WatchedDisk):
    """Somebody changes the row before it is written."""

    journal: Path | None = None

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "sql" and facts[0].startswith("UPDATE transfer") and self.journal:
            journal, self.journal = self.journal, None
            with closing(sqlite3.connect(journal, isolation_level=None)) as other:
                other.execute("UPDATE transfer SET change = change + 1")


def test_a_lost_update_is_no_damage_and_the_same_message_goes_through(tmp_path: Path) -> None:
    disk = Overtaken()
    with FileStoreManager(tmp_path, disk=disk) as store:
        store.store_segment(segment("one", 1, b"x"))
        disk.journal = journal_of(tmp_path)
        with pytest.raises(TakenOverError, match="Send the same message again") as caught:
            store.store_segment(segment("one", 2, b"y"))
        assert caught.value.file_id == "one"
        assert pickle.loads(pickle.dumps(caught.value)).file_id == "one"
        assert store.store_segment(segment("one", 2, b"y")).segments_received == 2
