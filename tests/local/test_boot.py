"""Which boot of the machine it is, the kernel says, or a test's ``Disk``; nothing else can."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from crew import Worker, segment
from support import Booted, send, transfer_messages

from txstore import FileStoreManager
from txstore.disk import Disk

PART = b"x" * 5000


class Unreadable(dict[str, str]):
    """An environment that nobody may ask."""

    def _refuse(self, *_: object) -> str:
        raise AssertionError("the store asked for a variable of the environment")

    __getitem__ = get = __contains__ = __iter__ = keys = items = _refuse  # type: ignore[assignment]


def test_no_variable_of_the_environment_has_a_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable is inherited by whatever is started later: it would say the same in each boot."""
    with monkeypatch.context() as here:
        here.setattr(os, "environ", Unreadable())
        here.setattr(os, "getenv", os.environ._refuse)  # type: ignore[attr-defined]
        with FileStoreManager(tmp_path, durability="segment") as store:
            send(store, transfer_messages(PART, 1000))
            assert store.transfers() == []
        FileStoreManager(tmp_path).close()
        assert Disk().boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize("boot", ["one", "two"])
def test_bytes_that_were_not_flushed_are_trusted_in_the_boot_that_a_workers_disk_names(
    storage: Path, boot: str
) -> None:
    with Worker(storage, durability="none", disk=partial(Booted, "one")) as worker:
        worker.store_segment(segment("one", 1, PART))
    [staged] = (storage / ".workdir" / "staging").iterdir()
    staged.write_bytes(bytes(len(PART)))  # what a power loss may leave of them
    with Worker(storage, durability="none", disk=partial(Booted, boot)) as worker:
        assert (worker.status("one") is None) == (boot == "two")
