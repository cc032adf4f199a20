"""Ctrl-C in the middle of a call: whatever it cut off, the manager can be closed."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from crew import apart, segment
from support import outcome

import txstore
from txstore import FileStoreManager
from txstore.local.journal import journal as engine

PACKAGE = str(Path(txstore.__file__).parent)


#: Names of the methods that take something.
TAKING = ("__enter__", "acquire", "try_acquire")


class Interrupt:
    """Raises, as a signal's handler does, when the n-th lock or ``with`` of the package has just
    been taken or entered, and what follows has not begun: it is not given back."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _arg: object) -> Any:
        code = frame.f_code
        if code.co_name not in TAKING or not code.co_filename.startswith(PACKAGE):
            return None
        if event == "return":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def interrupted_everywhere(storage: Path) -> None:
    faulthandler.dump_traceback_later(30, exit=True)
    engine._CLOSE_TIMEOUT = 0.01  # what closing waits for is not what is tested
    at = 0
    interrupted = True
    while interrupted:
        at += 1
        store = FileStoreManager(storage / str(at), durability="segment")
        store.store_segment(segment("one", 1, b"x"))
        interrupt = Interrupt(at)
        sys.settrace(interrupt)
        try:
            store.store_segment(segment("one", 2, b"x"))
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        interrupted = interrupt.left <= 0
        store.close()
        assert isinstance(outcome(store.transfers), txstore.errors.StoreClosedError)
    assert at > 5


def test_a_manager_whose_call_was_cut_off_anywhere_can_be_closed(tmp_path: Path) -> None:
    apart(interrupted_everywhere, tmp_path)
