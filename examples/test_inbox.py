"""A pytest suite for code that embeds the store: fixtures, generated messages, crashes.

Run it with::

    pip install 'txstore[testing]'
    pytest test_inbox.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from txstore import FileStoreManager
from txstore.testing import CrashingStore, SimulatedCrash, Transfer, scratch_folder
from txstore.testing.strategies import crashes, transfers


class Inbox:
    """The code under test: files that came, by name."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.store = FileStoreManager(folder, **options)

    def names(self) -> list[str]:
        """Names of the files that came whole."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())


def test_a_file_in_two_segments_arrives(txstore_store: FileStoreManager) -> None:
    for message in Transfer("report", (b"first, ", b"second"), file_id="one").messages():
        txstore_store.store_segment(message)
    assert Path(txstore_store.storage_dir, "report").read_bytes() == b"first, second"


@given(sent=transfers(name=st.just("report")))
def test_any_file_arrives_whole(sent: Transfer) -> None:
    with scratch_folder() as folder:
        inbox = Inbox(folder, durability="none")
        for message in sent.messages():
            assert inbox.names() == []
            inbox.store.store_segment(message)
        assert inbox.names() == ["report"]
        inbox.store.close()


@given(crash=crashes())
def test_a_killed_inbox_goes_on(crash: Any) -> None:
    sent = Transfer("report", (b"first, ", b"second"), file_id="one")
    with (
        scratch_folder() as folder,
        CrashingStore(
            folder, lambda setup: Inbox(setup.storage_dir, durability="none", disk=setup.disk)
        ) as crashing,
    ):
        crashing.faults.add(crash)
        for message in sent.messages():
            try:
                crashing.store.store.store_segment(message)
            except SimulatedCrash:
                crashing.restart()
                crashing.store.store.store_segment(message)
        assert crashing.store.names() == ["report"]
