"""Managers in real processes of their own, which can be killed; and what they are sent.

The processes are forked from a server that has imported the package and holds no manager, so that
hundreds of them cost little.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest
from support import NotAllowedHereError, PlainMessage, claim, message, transfer_messages

from txstore import FileStoreManager, FileStoreSegmentResult, TransferStatus
from txstore.cluster.servers import Servers
from txstore.disk import Disk
from txstore.errors import TxStoreError
from txstore.protocol.request import Message

T = TypeVar("T")

_context = get_context("forkserver")


@cache
def _server() -> ForkServerContext:
    """The context of processes that are forked from a server which is there, and warm."""
    _context.set_forkserver_preload(["warm", "seam", "hypothesis", "alembic.command"])
    # The server does not get this process's path (Python 3.11), where `warm` is found.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()
    return _context


# --- messages ------------------------------------------------------------------------------------


def segment(file_id: str, number: int, payload: bytes) -> Message:
    """A plain segment."""
    return message(payload, file_id=file_id, segment_number=str(number))


def last(file_id: str, number: int, payload: bytes, name: str, data: bytes) -> Message:
    """The last segment of ``data``."""
    return message(payload, file_id=file_id, segment_number=str(number), **claim(data, name))


def cut(data: bytes, count: int, *, file_id: str, name: str) -> list[PlainMessage]:
    """The messages that store ``data`` in ``count`` segments."""
    messages = transfer_messages(data, -(-len(data) // count), file_id=file_id, name=name)
    assert len(messages) == count
    return messages


def cancel(file_id: str) -> Message:
    return message(file_id=file_id, result="cancel")


# --- processes -----------------------------------------------------------------------------------


class WorkerDiedError(Exception):
    """The worker's process ended before it answered.

    :ivar code: its exit code; negative: the signal that ended it
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the worker ended with {code} before it answered")
        self.code = code


class Worker:
    """A manager in a process of its own.  What it raises is raised here.

    :param disk: makes the manager's disk, in that process
    :param environ: added to that process's environment
    :param wait: whether to wait until the manager is open; without, ``opened`` does
    :ivar pipe: can be read from when there is an answer
    """

    def __init__(
        self,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None = None,
        *,
        disk: Callable[[], Disk | Servers] | None = None,
        environ: Mapping[str, str] | None = None,
        wait: bool = True,
        **options: Any,
    ) -> None:
        self.pipe, theirs = _server().Pipe()
        folders = (os.fspath(storage_dir), None if working_dir is None else os.fspath(working_dir))
        self.process = _server().Process(
            target=_work, args=(theirs, folders, disk, dict(environ or {}), options), daemon=True
        )
        self.process.start()
        theirs.close()
        if wait:
            self.opened()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def opened(self) -> None:
        """Wait until the manager is open."""
        self._receive()

    def store_segment(self, message: Message) -> FileStoreSegmentResult:
        answer: FileStoreSegmentResult = self.call("store_segment", message)
        return answer

    def status(self, file_id: str) -> TransferStatus | None:
        answer: TransferStatus | None = self.call("status", file_id)
        return answer

    def call(self, method: str, *args: Any) -> Any:
        """Have the manager do something, and wait for it."""
        self.ask(method, *args)
        return self.answer()

    def ask(self, method: str, *args: Any) -> None:
        """Have the manager do something; ``answer`` waits for it."""
        with suppress(BrokenPipeError):  # it is dead, which `answer` tells
            self.pipe.send((method, args))

    def answer(self) -> Any:
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise WorkerDiedError(self.process.exitcode) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def kill(self) -> None:
        """End it like a crash, wherever it is."""
        self.process.kill()  # it may have died by itself by now
        self.process.join()

    def close(self) -> None:
        """Close the manager and end its process."""
        if self.process.is_alive():
            self.call("close")
            self.pipe.close()
        self.process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.process.is_alive():
            self.kill()
        self.close()


def _work(
    pipe: Connection,
    folders: tuple[str, str | None],
    disk: Callable[[], Disk | Servers] | None,
    environ: dict[str, str],
    options: dict[str, Any],
) -> None:
    os.environ.update(environ)
    try:
        store = FileStoreManager(*folders, disk=disk() if disk else None, **options)
    except (TxStoreError, OSError) as error:
        pipe.send(error)
        return
    pipe.send(None)
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            answer = getattr(store, method)(*args)
        except (TxStoreError, OSError) as error:
            answer = error
        pipe.send(answer)


def apart(function: Callable[..., T], *args: Any) -> T:
    """Run a function of a module in a process of its own, and answer its result.

    :raises AssertionError: it raised; with its traceback
    :raises Skipped: it raised ``NotAllowedHereError``
    """
    ours, theirs = _server().Pipe(duplex=False)
    process = _server().Process(target=_run, args=(theirs, function, args))
    process.start()
    theirs.close()
    try:
        outcome, answer = ours.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"{function.__name__} ended with {process.exitcode}") from None
    process.join()
    if outcome == "not allowed":
        pytest.skip(answer)
    if outcome == "raised":
        raise AssertionError(f"in a process of its own:\n{answer}")
    result: T = answer
    return result


def _run(pipe: Connection, function: Callable[..., object], args: tuple[object, ...]) -> None:
    try:
        pipe.send(("answered", function(*args)))
    except NotAllowedHereError as error:
        pipe.send(("not allowed", str(error)))
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
        raise


def forked(function: Callable[..., object], *args: Any) -> None:
    """Run a function in a forked child, which then ends without clean-up; wait for it.

    :raises AssertionError: it raised, or was ended
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"{function} in a forked child ended with {code}"


# --- looking -------------------------------------------------------------------------------------


def bytes_below(folder: Path) -> dict[str, bytes]:
    """The files below a folder and their bytes, read by another process: closing a descriptor of
    the journal here would drop the locks of this process's managers on it."""
    return apart(_bytes_below, folder)


def _bytes_below(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def visible(storage: Path) -> dict[str, bytes]:
    """The files that a reader of the storage dir sees, and their bytes."""
    found = {}
    for path in sorted(storage.rglob("*")):
        name = path.relative_to(storage)
        if name.parts[0] not in (".workdir", ".txstore") and not path.is_dir():
            found[str(name)] = path.read_bytes()
    return found


def staging_files(working_dir: Path) -> list[str]:
    return sorted(os.listdir(working_dir / "staging"))


def wait_for(condition: Callable[[], bool]) -> None:
    """Look at another process until it is where the test wants it, for as long as a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.002)
