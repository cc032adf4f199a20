"""Exceptions that a signal handler raises in the middle of a call.

They strike between any two steps.  Where the store goes on after an error of the disk, it must not
go on after one of these: nobody would let go of what was held at that moment.  A ``TimeoutError``
of an alarm's handler is an ``OSError``, as the kernel's errors are, but has no errno.
"""

from __future__ import annotations

from types import TracebackType

from txstore.errors import TxStoreError


def is_strike(error: BaseException) -> bool:
    """Whether an error struck in the middle.  By the store's own, and the kernel's, a step tells
    how it went."""
    return not isinstance(error, TxStoreError) and (
        not isinstance(error, OSError) or error.errno is None
    )


def pass_on(error: BaseException) -> None:
    """Before an error is ignored: raise it if it struck in the middle."""
    if is_strike(error):
        raise error


class Ignored:
    """``with``: ignore what the disk refuses, as ``contextlib.suppress(OSError)`` does, and pass
    strikes on."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return isinstance(error, OSError) and not is_strike(error)


#: It keeps nothing, so one does for all.
ignored = Ignored()
