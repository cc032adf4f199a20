"""Programs that change Python's own modules, and ways to hand a manager on."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support import OpenStore

from txstore.errors import StoreNotPicklableError, TxStoreError

PATCHED = """
import os, sys
original = os.open
def patched(file, flags, mode=0o777, dir_fd=None):
    return original(file, flags, mode, dir_fd=dir_fd)
os.open = patched
"""
EVENTLET = "import sys, eventlet; eventlet.monkey_patch()\n"
STORE = """
import hashlib
from types import SimpleNamespace
from txstore import FileStoreManager
fields = {"segment_number": "1", "result": "store", "name": "file", "size": "1"}
fields["hash_sha256"] = hashlib.sha256(b"x").hexdigest()
with FileStoreManager(sys.argv[1]) as store:
    message = SimpleNamespace(payload=b"x", other_fields=fields)
    assert store.store_segment(message).file_result == "store"
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["os.open is another function", "eventlet"])
def test_a_patched_os_is_a_posix_system_all_the_same(tmp_path: Path, how: str) -> None:
    if how == "eventlet":
        pytest.importorskip("eventlet", reason="eventlet is not installed")
    code = (EVENTLET if how == "eventlet" else PATCHED) + STORE
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=60)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_manager_that_is_pickled_says_what_to_do_instead(manager: OpenStore) -> None:
    store = manager()
    for hand_on in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(StoreNotPicklableError, match="open another FileStoreManager"):
            hand_on(store)
    assert issubclass(StoreNotPicklableError, TypeError)
    assert issubclass(StoreNotPicklableError, TxStoreError)
    assert store.transfers() == []
