"""Every error that txstore raises of its own: one root, facts as attributes, picklable.

``TxStoreError`` is the root.  Each class also derives from the builtin that a caller would catch:
``ValueError`` for what the caller asked wrongly, ``OSError`` (with an ``errno``) for what the disk
or another process did, ``TimeoutError`` for a wait that took too long.  An error of the operating
system on one of the store's own files is let through as the kernel reported it.
"""

from __future__ import annotations

import errno as _errno
import os
from typing import Any


def _rebuild(cls: type[TxStoreError], args: tuple[Any, ...], facts: dict[str, Any]) -> TxStoreError:
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in facts.items():
        setattr(error, name, value)
    return error


class TxStoreError(Exception):
    """Root of the hierarchy."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call __init__ with the message alone, and lose every attribute.
        facts = dict(self.__dict__)
        if isinstance(self, OSError):  # keeps these outside of its __dict__
            facts.update(errno=self.errno, strerror=self.strerror, filename=self.filename)
        return _rebuild, (type(self), self.args, facts)


class RequestError(TxStoreError, ValueError):
    """A request that the contract refuses.  Nothing was changed, unless a subclass says so.

    :ivar file_id: the transfer's id, ``None`` where none was (validly) given
    """

    def __init__(self, message: str, *, file_id: str | None = None) -> None:
        super().__init__(message)
        self.file_id = file_id


class FieldError(RequestError):
    """A field of the request is missing or malformed.

    :ivar field: name of the field
    :ivar received: the value that came
    """

    def __init__(
        self, message: str, *, field: str, received: object = None, file_id: str | None = None
    ) -> None:
        super().__init__(message, file_id=file_id)
        self.field = field
        self.received = received


class NameRefusedError(RequestError):
    """The file's name leads to a place where nothing may be stored; the transfer is kept.

    :ivar name: the name as received
    :ivar reason: why it is refused, in words
    """

    def __init__(self, name: object, reason: str, *, file_id: str | None = None) -> None:
        super().__init__(
            f"The name {name!r:.100} is refused: {reason}."
            " Send the last segment again with another name.",
            file_id=file_id,
        )
        self.name = name
        self.reason = reason


class SequenceError(RequestError):
    """A segment came out of turn; the transfer is as it was.

    :ivar expected: number of the segment to send next
    :ivar received: number that came
    """

    def __init__(
        self, *, expected: int, received: int, file_id: str | None, message: str | None = None
    ) -> None:
        if message is None and expected == 1:
            message = (
                f"Segment {received} came for file id {file_id!r}, but no such transfer is known:"
                " it is finished, cancelled, expired, or was never begun. Start at segment 1."
            )
        elif message is None:
            message = (
                f"Segment {expected} is expected for file id {file_id!r}, but segment {received}"
                f" came. Go on with segment {expected}."
            )
        super().__init__(message, file_id=file_id)
        self.expected = expected
        self.received = received


class RepeatMismatchError(SequenceError):
    """The last recorded segment's number came again with other content; nothing was changed."""

    def __init__(self, *, expected: int, received: int, file_id: str | None) -> None:
        super().__init__(
            expected=expected,
            received=received,
            file_id=file_id,
            message=(
                f"Segment {received} of file id {file_id!r} was received before with other content."
                f" Go on with segment {expected}, or cancel the transfer and start again."
            ),
        )


class FileMismatchError(RequestError):
    """The bytes received have not the size or the hash that the last message states.

    The transfer is ended and its bytes are dropped, since no later message could mend it.

    :ivar expected_size: size in bytes that the message states
    :ivar received_size: size in bytes of what was received
    :ivar expected_sha256: SHA-256 (lower-case hex) that the message states
    :ivar received_sha256: SHA-256 (lower-case hex) of what was received
    """

    def __init__(
        self,
        *,
        expected_size: int,
        received_size: int,
        expected_sha256: str,
        received_sha256: str,
        file_id: str | None,
    ) -> None:
        super().__init__(
            f"File id {file_id!r} should have {expected_size} bytes with SHA-256 {expected_sha256},"
            f" but {received_size} bytes with SHA-256 {received_sha256} were received."
            " The transfer is dropped: send the file again from segment 1.",
            file_id=file_id,
        )
        self.expected_size = expected_size
        self.received_size = received_size
        self.expected_sha256 = expected_sha256
        self.received_sha256 = received_sha256


class OptionError(TxStoreError, ValueError):
    """An option of the constructor has a value that it cannot have.

    :ivar option: its name
    :ivar received: the value that came
    """

    def __init__(self, message: str, *, option: str, received: object) -> None:
        super().__init__(message)
        self.option = option
        self.received = received


class StoreMismatchError(TxStoreError, ValueError):
    """The storage dir and the working dir do not belong together.

    :ivar storage_dir: absolute path
    :ivar working_dir: absolute path
    """

    def __init__(self, message: str, *, storage_dir: str, working_dir: str) -> None:
        super().__init__(message)
        self.storage_dir = storage_dir
        self.working_dir = working_dir


class StoreClosedError(TxStoreError, RuntimeError):
    """The manager was closed; open another over the same folders to go on."""

    def __init__(self) -> None:
        super().__init__(
            "This FileStoreManager is closed. Open another one over the same folders to go on."
        )


class LockTimeoutError(TxStoreError, TimeoutError):
    """A lock was not had in time; nothing was changed and the call can be repeated.

    :ivar path: the lock's file
    :ivar timeout: seconds that all waiting of the call may take together
    """

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(
            _errno.ETIMEDOUT,
            f"Not had within lock_timeout ({timeout:g} s): others are busy with it. Try again",
            path,
        )
        self.path = path
        self.timeout = timeout


class StoreDiskError(TxStoreError, OSError):
    """The disk, or somebody working on it, stands in the way; ``errno`` and ``filename`` tell."""

    def __init__(self, number: int, message: str, path: str) -> None:
        super().__init__(number, message, path)
        self.path = path


class JournalError(StoreDiskError):
    """SQLite could not read or write the journal; its own error is the ``__cause__``."""


class JournalDamagedError(JournalError):
    """The journal is not what txstore wrote.  Nothing was deleted or written."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            _errno.EUCLEAN,
            f"The journal is damaged ({what}). Nothing was changed. Restore the working dir from a"
            " backup, or move it away to start afresh: finished files stay, unfinished transfers"
            " have to be sent again",
            path,
        )
        self.what = what


class JournalVersionError(JournalError):
    """The journal was written, or upgraded meanwhile, by a newer txstore.  Nothing was changed.

    :ivar found: revision of the journal
    :ivar supported: newest revision that this version knows
    """

    def __init__(self, path: str, *, found: str, supported: str) -> None:
        super().__init__(
            _errno.EPROTO,
            f"The journal has revision {found!r}, but this txstore knows none after {supported!r}."
            " Upgrade txstore here too, and restart",
            path,
        )
        self.found = found
        self.supported = supported


class ReplacedError(StoreDiskError):
    """A file of the store was removed or replaced under a live manager; nothing is acknowledged."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            _errno.ESTALE,
            f"The store's {what} was removed or replaced while in use. Find out by whom, then"
            " reopen the store",
            path,
        )
        self.what = what


class StagingDamagedError(StoreDiskError):
    """The staged bytes of a transfer are gone or changed; cancel it and send it again.

    :ivar file_id: the transfer's id
    """

    def __init__(self, path: str, file_id: str, what: str) -> None:
        self.what = what
        super().__init__(
            _errno.ESTALE,
            f"The staging file of file id {file_id!r} {what}. Cancel the transfer, send it again",
            path,
        )
        self.file_id = file_id


class NetworkFileSystemError(StoreDiskError):
    """Locks and the journal cannot be relied on where the working dir is.

    :ivar fstype: type of the file system
    """

    def __init__(self, path: str, fstype: str) -> None:
        super().__init__(
            _errno.EOPNOTSUPP,
            f"The file system is {fstype}: kernel locks and SQLite's journal cannot be relied on"
            " over a network. Use a working dir on a local disk, or pass allow_network_fs=True if"
            " only one machine ever uses it",
            path,
        )
        self.fstype = fstype


class UnsupportedPlatformError(StoreDiskError):
    """txstore cannot keep its promises on this operating system."""

    def __init__(self, platform: str) -> None:
        super().__init__(
            _errno.ENOSYS,
            f"txstore needs POSIX folders, locks and flushes, which {platform} does not offer",
            os.curdir,
        )
        self.platform = platform
