"""From an error to what a person can do about it."""

from __future__ import annotations

import errno

from txstore.errors import (
    JournalOutdatedError,
    JournalVersionError,
    LockTimeoutError,
    NameRefusedError,
    TxStoreError,
    UnfitServerError,
)


class CommandError(Exception):
    """Something that is no error of the store; the message is worded for a person."""


#: every error that is no fault of the program and ends in a message instead of a traceback
EXPECTED = (TxStoreError, OSError, CommandError)

_AGAIN = "Nothing that was acknowledged is lost: the same command goes on from there."
_REMEDIES = {
    errno.ENOSPC: f"The disk is full. Make room on it, then run the same command again. {_AGAIN}",
    errno.EDQUOT: f"Your quota is used up. Make room, then run the same command again. {_AGAIN}",
    errno.EFBIG: (
        "The file is larger than the file system or a limit of this process (`ulimit -f`) allows."
        f" Lift the limit, then run the same command again. {_AGAIN}"
    ),
    errno.EACCES: (
        "Run as a user who may write there, change the permissions, or choose another folder."
    ),
    errno.EPERM: "Run as a user who may do this, or choose another folder.",
    errno.EROFS: "The file system is mounted read-only. Mount it for writing, or choose another.",
    errno.ENOTDIR: "A file stands where a folder is needed. Choose another folder.",
    errno.EIO: f"The disk reports errors: look into the kernel's log. {_AGAIN}",
}

#: The same command would be refused again.
_SAY_IT_THEMSELVES = (JournalVersionError, JournalOutdatedError, UnfitServerError)


def explain(error: Exception) -> str:
    """What happened and what to do, in one line."""
    if isinstance(error, LockTimeoutError):
        return (
            f"another process has been busy with the store for {error.timeout:g} s"
            f" ({error.path}). {_AGAIN}"
        )
    if isinstance(error, NameRefusedError):
        return f"the name {error.name!r} is refused: {error.reason}. Choose another with --name."
    if isinstance(error, MemoryError):
        return f"there is not enough memory for it. Choose a smaller --segment-size. {_AGAIN}"
    if isinstance(error, OSError):
        return _explain_disk(error)
    return str(error)


def _explain_disk(error: OSError) -> str:
    what = error.strerror or str(error)
    if error.filename is not None:
        what = f"{error.filename!r}: {what}"
    if not what.endswith("."):
        what += "."
    # The store's own errors say what to do themselves, and have other numbers than these.
    remedy = _REMEDIES.get(error.errno or 0)
    if "://" in str(error.filename) and not isinstance(error, _SAY_IT_THEMSELVES):
        remedy = _AGAIN  # a server's: what holds for a disk does not help
    return what if remedy is None else f"{what} {remedy}"
