"""What goes wrong, and when: "fail the second flush with EIO", "crash before the rename".

A plan belongs to a ``FaultyDisk`` or a ``SimulatedDisk``, which asks it before and after every
call, or to ``FaultyServers``, which says how it names its calls.  Those of a disk are named as the
methods of ``txstore.disk.Disk``; SQLite's are ``"connect"``,
``"commit"``, ``"checkpoint"`` and ``"statement"``.  A transaction of one statement, as an append's
is, commits with it and makes no call of its own for that.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from txstore.disk import Disk
from txstore.errors import OptionError

#: Calls of SQLite: they fail with SQLite's own errors.
OF_SQLITE = ("connect", "commit", "checkpoint", "statement")
#: Calls that change something on the disk, or make a change durable.
CHANGING = (
    *("create", "open_or_create", "pwrite", "truncate", "allocate", "chmod", "flush", "flush_all"),
    *("create_there", "set_group", "set_acl", "set_modified"),
    *("make_folder", "chmod_folder", "remove_folder", "rename", "link", "unlink", "flush_folder"),
    *("flush_file_system", "link_to", "make_link", "clone", "copy_attributes"),
)
#: Requests to an object store that change what it has, and the others; PostgreSQL's calls besides
#: ``"connect"`` and ``"commit"``.
CHANGING_REQUESTS = (
    *("put_object", "delete_objects", "create_multipart_upload", "upload_part", "upload_part_copy"),
    *("complete_multipart_upload", "abort_multipart_upload"),
)
OF_SERVERS = (
    *("execute", "head_object", "get_object", "list_objects_v2", "list_multipart_uploads"),
    *CHANGING_REQUESTS,
)
# Lock files are made where an id, which may be random, picks them.  Everything else a store does
# as often in every run; it looks at the disk as often as time and chance have it.
_COUNTED = {*CHANGING, *CHANGING_REQUESTS, "commit"} - {"open_or_create"}

#: All that can be named.
CALLS = frozenset(name for name in dir(Disk) if not name.startswith("_")) | {
    *OF_SQLITE,
    *OF_SERVERS,
}
#: Not calls, but in their place.
_ANY = ("change", "*")

_SQLITE_TEXTS = {
    errno.ENOSPC: "database or disk is full",
    errno.EIO: "disk I/O error",
    errno.EBUSY: "database is locked",
    errno.EAGAIN: "database is locked",
    errno.EROFS: "attempt to write a readonly database",
    errno.EACCES: "unable to open database file",
    errno.EMFILE: "unable to open database file",
}


class SimulatedCrash(BaseException):
    """The process is dead: no ``except Exception`` may go on from here."""


@dataclass
class Fault:
    """One thing that goes wrong.

    :ivar call: name of the call; ``"change"`` for any that changes what is on the disk, so that the
        same one is met in every run; ``"*"`` for any at all
    :ivar nth: which of the matching calls, from 1
    :ivar error: errno; ``None``: a crash
    :ivar path: only calls whose name or path contains this text
    :ivar forever: all matching calls from the n-th on
    :ivar after: the call is carried out first
    :ivar short: no error, but a write takes only half of what it is given
    :ivar seen: how many matching calls there were
    :ivar done: whether it has struck
    :raises OptionError: there is no such call, or it cannot fail like that (a ``ValueError``)
    """

    call: str
    nth: int = 1
    error: int | None = None
    path: str = ""
    forever: bool = False
    after: bool = False
    short: bool = False
    seen: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        if self.call not in CALLS and self.call not in _ANY:
            raise _refused(
                "call",
                self.call,
                f"There is no call {self.call!r} to fail. fdatasync is 'flush', fsync 'flush_all',"
                " that of a folder 'flush_folder'. Expected 'change' or '*', or one of"
                f" {', '.join(sorted(CALLS))}.",
            )
        if type(self.nth) is not int or self.nth < 1:
            raise _refused(
                "nth", self.nth, f"Calls are counted 1, 2, 3, ...; {self.nth!r} is none of these."
            )
        if self.error is not None and type(self.error) is not int:
            raise _refused(
                "error",
                self.error,
                f"An error is a number of the module errno, like errno.EIO, not {self.error!r}.",
            )
        if self.short and self.call != "pwrite":
            raise _refused(
                "short", self.call, f"Only 'pwrite' can be cut short, not {self.call!r}."
            )

    def strikes(self, call: str, path: str) -> bool:
        """Whether it is this call's turn; to be asked once for each call."""
        wanted = call in _COUNTED if self.call == "change" else self.call in ("*", call)
        if not wanted or self.path not in path:
            return False
        self.seen += 1
        struck = self.seen >= self.nth if self.forever else self.seen == self.nth
        self.done = self.done or struck
        return struck


def _refused(option: str, received: object, message: str) -> OptionError:
    return OptionError(message, option=option, received=received)


class FaultPlan:
    """Faults, and the number of calls so far.

    :ivar calls: how many calls were made
    :ivar history: names and paths of all calls, where ``keep_history`` was asked for
    """

    def __init__(self, *faults: Fault, keep_history: bool = False) -> None:
        self.faults = list(faults)
        self.calls = 0
        self.history: list[tuple[str, str]] | None = [] if keep_history else None
        self.watch: Callable[[str, str], None] | None = None

    @property
    def looks(self) -> bool:
        """Whether it matters to anybody which files calls are about."""
        return bool(self.faults) or self.history is not None or self.watch is not None

    def fail(
        self,
        call: str,
        error: int = errno.EIO,
        *,
        nth: int = 1,
        path: str = "",
        forever: bool = False,
        after: bool = False,
    ) -> Fault:
        """Let a call fail.  What is counted are the calls from now on; see ``Fault``.

        :param error: errno; SQLite's calls fail with what SQLite makes of it
        """
        return self.add(Fault(call, nth, error, path, forever, after))

    def shorten(self, *, nth: int = 1, path: str = "", forever: bool = False) -> Fault:
        """Let a write take only half of what it is given, without an error."""
        return self.add(Fault("pwrite", nth, 0, path, forever, short=True))

    def crash(self, call: str, *, nth: int = 1, path: str = "", after: bool = False) -> Fault:
        """Let the process die before a call, or right after it."""
        return self.add(Fault(call, nth, None, path, False, after))

    def add(self, fault: Fault) -> Fault:
        """Let one more thing go wrong."""
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """The disk is well again."""
        self.faults.clear()

    def struck(self, call: str, path: str) -> list[Fault]:
        """The faults whose turn it is at this call."""
        self.calls += 1
        if self.history is not None:
            self.history.append((call, path))
        if self.watch is not None:
            self.watch(call, path)
        return [fault for fault in self.faults if fault.strikes(call, path)]


def raise_fault(fault: Fault, call: str, path: str) -> None:
    """Raise what a fault asks for.

    :raises SimulatedCrash: a crash
    :raises OSError: the error, or for SQLite's calls ``sqlite3.OperationalError``
    """
    if fault.short:
        return
    if fault.error is None:
        raise SimulatedCrash(f"{call} {path}")
    if call in OF_SQLITE:
        raise sqlite3.OperationalError(_SQLITE_TEXTS.get(fault.error, "disk I/O error"))
    raise OSError(fault.error, os.strerror(fault.error), path or None)
