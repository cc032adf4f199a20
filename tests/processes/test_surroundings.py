"""Programs that change Python's own modules, and ways to hand a manager on."""

from __future__ import annotations

import copy
import faulthandler
import pickle
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from crew import apart, segment
from support import NotAllowedHereError, OpenStore

from txstore import FileStoreManager, aio
from txstore.disk import Disk
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


def test_a_manager_that_is_pickled_says_what_to_do_instead(
    manager: OpenStore, tmp_path: Path
) -> None:
    store = manager()
    for one in (store, aio.FileStoreManager(tmp_path)):
        for hand_on in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(StoreNotPicklableError, match="open another FileStoreManager"):
                hand_on(one)
    assert issubclass(StoreNotPicklableError, TypeError)
    assert issubclass(StoreNotPicklableError, TxStoreError)
    assert store.transfers() == []


class BusyDisk(Disk):
    """Somebody else has each lock for so many more attempts."""

    busy = 0

    def try_lock(self, fd: int, byte: int) -> bool:
        self.busy -= 1
        return self.busy < 0 and super().try_lock(fd, byte)


def patched_later(storage: Path) -> None:
    """As gevent does it: greenlets have the numbers of threads, and a sleep runs others."""
    faulthandler.dump_traceback_later(60, exit=True)
    try:
        package: Any = import_module("greenlet")
    except ImportError:
        raise NotAllowedHereError("greenlet is not installed") from None
    getcurrent, greenlet = package.getcurrent, package.greenlet
    disk = BusyDisk()
    store = FileStoreManager(storage, disk=disk)
    main = getcurrent()
    time.sleep = lambda _seconds: main.switch()
    threading.get_ident = lambda: id(getcurrent())
    sending = greenlet(lambda: store.store_segment(segment("one", 1, b"x")))
    disk.busy = 30
    sending.switch()
    assert store.transfers("two") == []
    assert store.store_segment(segment("one", 1, b"x")).segments_received == 1
    while sending:
        sending.switch()
    greenlet(store.close).switch()
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.promise(7)
def test_a_manager_that_was_made_before_greenlets_took_the_place_of_threads_is_used_by_them(
    tmp_path: Path,
) -> None:
    apart(patched_later, tmp_path)


FINALIZED = """
import os, sys
from txstore import FileStoreManager
from txstore.errors import StoreClosedError
class Late:
    def __init__(self, store):
        self.store = store
    def __del__(self, manager=FileStoreManager, closed=StoreClosedError, tell=os.write):
        for call in (self.store.transfers, lambda: manager(self.store.storage_dir)):
            try:
                call()
                tell(1, b"open ")
            except closed:
                tell(1, b"closed ")
            except BaseException as error:
                tell(1, repr(error).encode())
late = Late(FileStoreManager(sys.argv[1]))
"""


def test_a_finalizer_that_runs_after_the_exit_handlers_is_told_that_all_is_closed(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", FINALIZED, str(tmp_path)]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout + done.stderr == "closed closed "
