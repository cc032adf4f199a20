"""Every error that txstore raises of its own: one root, facts as attributes, picklable.

``TxStoreError`` is the root.  Each class also derives from the builtin that a caller would catch:
``ValueError`` for what the caller asked wrongly, ``OSError`` (with an ``errno``) for what the disk
or another process did, ``TimeoutError`` for a wait that took too long.  The errors of the fabric
come last: ``FabricError`` is above them.  An error of the operating system on one of the store's
own files is let through as the kernel reported it.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Mapping
from typing import Any


def _rebuild(cls: type[TxStoreError], args: tuple[Any, ...], facts: dict[str, Any]) -> TxStoreError:
    kind = OSError if issubclass(cls, OSError) else Exception  # that of the two with more in it
    error: TxStoreError = kind.__new__(cls, *args)
    error.args = args
    for name, value in facts.items():
        setattr(error, name, value)
    return error


class TxStoreError(Exception):
    """Root of all errors that txstore raises of its own."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call __init__ with the message alone, and lose every attribute.
        facts = dict(self.__dict__)
        if isinstance(self, OSError):  # keeps these outside of its __dict__
            kept = {"errno": self.errno, "strerror": self.strerror, "filename": self.filename}
            # Setting one to None would show in the error's text.
            facts.update({name: value for name, value in kept.items() if value is not None})
        if isinstance(self, ImportError):  # likewise
            facts["msg"] = self.msg
        return _rebuild, (type(self), self.args, facts)


class RequestError(TxStoreError, ValueError):
    """A request is refused.  Nothing was changed, unless a subclass says so.

    :ivar file_id: the transfer's id; ``None`` where none was given, or none that can be
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


class NameTakenError(NameRefusedError, FileExistsError):
    """A file is stored under the name already, and ``on_exists="refuse"``.  Nothing was changed:
    the transfer is at its last acknowledged segment.

    :ivar errno: ``EEXIST``
    """

    def __init__(self, name: object, *, file_id: str | None = None) -> None:
        super().__init__(name, "a file has that name already", file_id=file_id)
        self.errno, self.strerror = _errno.EEXIST, str(self.args[0])

    def __str__(self) -> str:
        return str(self.strerror)  # no call failed that has this number


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
    """The bytes received do not have the size or the hash that the last message states.

    The transfer was ended and its bytes were dropped, since no later message could mend it.

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


class LimitError(RequestError):
    """The request goes beyond a limit of the store.  Nothing was changed.

    :ivar option: name of the limit
    :ivar limit: what may be used at most (bytes, or transfers)
    :ivar used: what is used without this request
    :ivar wanted: what would be used with it
    """

    def __init__(
        self,
        message: str,
        *,
        option: str,
        limit: int,
        used: int,
        wanted: int,
        file_id: str | None = None,
    ) -> None:
        super().__init__(message, file_id=file_id)
        self.option, self.limit, self.used, self.wanted = option, limit, used, wanted


class NoSuchFileError(RequestError):
    """No file that can be handed out is stored under the name."""


class RequestedVersionError(RequestError):
    """The stored file is another than the one that the request names."""


class OptionError(TxStoreError, ValueError):
    """An option of the constructor has a value that it cannot have.

    :ivar option: its name
    :ivar received: the value that came
    """

    def __init__(self, message: str, *, option: str, received: object) -> None:
        super().__init__(message)
        self.option = option
        self.received = received


class UnknownConsumerError(TxStoreError, LookupError):
    """No consumer of events has that name (any more): it was removed.

    :ivar consumer: the name
    """

    def __init__(self, consumer: str) -> None:
        super().__init__(
            f"There is no consumer {consumer!r}: it was removed. To register it anew, ask for"
            " events by that name"
        )
        self.consumer = consumer


class StoreMismatchError(TxStoreError, ValueError):
    """The storage dir and the working dir do not belong together.

    :ivar storage_dir: absolute path
    :ivar working_dir: absolute path
    """

    def __init__(self, message: str, *, storage_dir: str, working_dir: str) -> None:
        super().__init__(message)
        self.storage_dir = storage_dir
        self.working_dir = working_dir


class BackupRefusedError(TxStoreError, ValueError):
    """A backup cannot be made there.  Nothing was changed.

    :ivar destination: where it was to be
    :ivar reason: why not, in words
    """

    def __init__(self, destination: str, reason: str) -> None:
        super().__init__(f"No backup is made at {destination!r}: {reason}.")
        self.destination = destination
        self.reason = reason


class StoreClosedError(TxStoreError, RuntimeError):
    """The manager is closed.  To go on, open another over the same folders."""

    def __init__(self) -> None:
        super().__init__(
            "This FileStoreManager is closed. Open another one over the same folders to go on."
        )


class LockTimeoutError(TxStoreError, TimeoutError):
    """A lock was not had in time.  Nothing was changed, and the call can be repeated.

    :ivar path: the file that is locked
    :ivar timeout: seconds that all waiting of the call may take together
    :ivar lock: which lock of the lock file: its class (transfer, name, journal) and its stripe;
        empty: one of SQLite's
    """

    def __init__(self, path: str, timeout: float, lock: str = "") -> None:
        what = f"The lock {lock!r} was not" if lock else "Not"
        super().__init__(
            _errno.ETIMEDOUT,
            f"{what} had within lock_timeout ({timeout:g} s): others are busy with it. Try again",
            path,
        )
        self.path = path
        self.timeout = timeout
        self.lock = lock


class _WaitedError(TimeoutError):
    def __init__(self, message: str) -> None:
        super().__init__(_errno.ETIMEDOUT, message)

    def __str__(self) -> str:
        return str(self.strerror)  # no call failed that has this number


class BusyError(TxStoreError, _WaitedError):
    """The service is reading other files.  The same request can be sent again."""


class StoreNotPicklableError(TxStoreError, TypeError):
    """A manager was pickled or copied.  It holds locks and open files, so it cannot be."""

    def __init__(self) -> None:
        super().__init__(
            "A FileStoreManager cannot be pickled or copied: give the other side its storage_dir"
            " and working_dir, and open another FileStoreManager over them there."
        )


class StoreDiskError(TxStoreError, OSError):
    """The disk failed, or somebody changed what is the store's.  ``errno`` says which error it is.

    :ivar path: the file or folder
    """

    def __init__(self, number: int, message: str, path: str) -> None:
        super().__init__(number, message, path)
        self.path = path


class JournalError(StoreDiskError):
    """SQLite, or PostgreSQL, could not read or write the journal.  Its own error is the
    ``__cause__``.

    After a write, whether it took place shows when the transfer's status is asked for.
    """


class ObjectStoreError(StoreDiskError):
    """The object store failed, for longer than ``lock_timeout`` or for good.  Its library's own
    error is the ``__cause__``.

    What was acknowledged stays, and the same message can be sent again.
    """


class MissingExtraError(TxStoreError, ImportError):
    """A library is not installed that such a store needs.

    :ivar extra: the extra of txstore that brings it
    :ivar needs: what needs it, in words
    """

    def __init__(self, extra: str, needs: str) -> None:
        super().__init__(f"{needs} needs: pip install 'txstore[{extra}]'")
        self.extra, self.needs = extra, needs


class JournalDamagedError(JournalError):
    """The journal is not what txstore wrote.  Nothing was deleted or written.

    :ivar what: what is wrong with it, in words
    """

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


class JournalOutdatedError(JournalError):
    """The journal is older than this txstore, or has no tables yet, and is not to be upgraded by
    whoever opens it (``auto_migrate=False``).  Nothing was changed.

    :ivar found: revision of the journal; ``None``: it has no tables
    :ivar supported: the one that this version needs
    :ivar command: for a shell; it upgrades the journal
    """

    def __init__(self, path: str, *, found: str | None, supported: str, command: str) -> None:
        what = "has no tables" if found is None else f"has revision {found!r}"
        super().__init__(
            _errno.EPROTO,
            f"The journal {what}, and this txstore needs {supported!r}. Stop older workers, and"
            f" run: {command}",
            path,
        )
        self.found, self.supported, self.command = found, supported, command


class UnfitServerError(JournalError):
    """PostgreSQL does not keep over a power loss what it confirms, and the level promises that.

    :ivar settings: those that are off and must be on
    """

    def __init__(self, path: str, settings: list[str]) -> None:
        super().__init__(
            _errno.EPROTO,
            f"PostgreSQL runs with {' and '.join(f'{one}=off' for one in settings)}: a power loss"
            " would take what it confirmed. Set it to on and reload the server, or open the store"
            ' with durability="none"',
            path,
        )
        self.settings = settings


class StoreMovedError(JournalVersionError):
    """The store is not to be worked on: it was moved, or it is being filled.  Nothing was changed.

    :ivar storage_dir: of the store that it was moved to, or that it is filled from
    :ivar working_dir: likewise
    :ivar finished: whether what was here is to be worked on there.  ``False``: ``txstore migrate``
        has to be run to its end
    """

    def __init__(self, path: str, *, storage_dir: str, working_dir: str, finished: bool) -> None:
        super().__init__(path, found="moved", supported="")
        where = f"storage dir {storage_dir} and working dir {working_dir}"
        self.strerror = (
            f"This store was moved to {where}. Use these two in place of its own; if that store is"
            " refused as well, run the same `txstore migrate` again: it goes on"
            if finished
            else f"This store is being filled from {where}, and not all of it is here. Run the same"
            " `txstore migrate` again: it goes on"
        )
        self.args = (self.errno, self.strerror)
        self.storage_dir, self.working_dir, self.finished = storage_dir, working_dir, finished


class MigrationError(TxStoreError, ValueError):
    """A store cannot be moved.  Both stores are as they were.

    :ivar names: of files that are in the way, some of them, each with why
    """

    def __init__(self, message: str, names: list[tuple[str, str]] | None = None) -> None:
        super().__init__(message)
        self.names = names or []


class SourceDamagedError(TxStoreError, ValueError):
    """A file of a store that is being moved has not the bytes that were stored.  It was not taken,
    and the target stays closed.

    :ivar name: the file
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class JournalLinkedError(JournalError):
    """The journal's file has a second name, as in a backup made of hard links, and may be in use.

    What is written here would be written there too.  So nothing was changed.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            _errno.EMLINK,
            "The journal has a second name, as in a copy that was made of hard links: what is"
            " written here would be written there too. Nothing was changed. Remove the copy, or,"
            " with no worker running, replace the journal.db* files here by copies of themselves",
            path,
        )


class ReplacedError(StoreDiskError):
    """A file of the store was removed or replaced under a live manager.  Nothing is acknowledged.

    :ivar what: which one, in words
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            _errno.ESTALE,
            f"The store's {what} was removed or replaced while in use. Find out by whom, then"
            " reopen the store",
            path,
        )
        self.what = what


class StagingDamagedError(StoreDiskError):
    """Somebody removed or changed the staged bytes of a transfer.  Cancel it, send it again.

    :ivar file_id: the transfer's id
    :ivar what: what happened to them, in words
    """

    def __init__(self, path: str, file_id: str, what: str) -> None:
        self.what = what
        super().__init__(
            _errno.ESTALE,
            f"The staging file of file id {file_id!r} {what}. Cancel the transfer, send it again",
            path,
        )
        self.file_id = file_id


class TakenOverError(StoreDiskError):
    """Another worker, which does not see our locks, changed the transfer meanwhile.

    Nothing was recorded and nothing is damaged: the same message can be sent again.

    :ivar file_id: the transfer's id
    """

    def __init__(self, path: str, file_id: str) -> None:
        super().__init__(
            _errno.EAGAIN,
            f"Another worker changed the transfer with file id {file_id!r} meanwhile. Send the same"
            " message again",
            path,
        )
        self.file_id = file_id


class NetworkFileSystemError(StoreDiskError):
    """The working dir is on a network file system, where locks and the journal are not reliable.

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


class UnfitFileSystemError(StoreDiskError):
    """The file system lacks a call that the store's promises rest on.

    :ivar fstype: type of the file system
    :ivar call: the call that it refuses
    """

    def __init__(self, number: int, path: str, fstype: str, call: str) -> None:
        super().__init__(
            number,
            f"The file system ({fstype or 'of an unknown type'}) refuses {call}"
            f" ({os.strerror(number)}), without which nothing can be kept safe there. Use folders"
            " on ext4, XFS, Btrfs or tmpfs",
            path,
        )
        self.fstype = fstype
        self.call = call


class PathTooLongError(StoreDiskError):
    """SQLite cannot open files with paths as long as the working dir's.  Nothing was made.

    :ivar length: bytes of the longest path that it would have to open, all links resolved
    :ivar limit: bytes that it takes
    """

    def __init__(self, path: str, length: int, limit: int) -> None:
        super().__init__(
            _errno.ENAMETOOLONG,
            f"The working dir's path is too long: SQLite opens paths of at most {limit} bytes, and"
            f" its files would have {length}. Use a working_dir with a shorter path",
            path,
        )
        self.length = length
        self.limit = limit


class UnsupportedPlatformError(StoreDiskError):
    """txstore cannot keep its promises on this operating system.

    :ivar platform: its name, as ``os.name`` has it
    """

    def __init__(self, platform: str) -> None:
        super().__init__(
            _errno.ENOSYS,
            f"txstore needs POSIX folders, locks and flushes, which {platform} does not offer",
            os.curdir,
        )
        self.platform = platform


class FabricError(TxStoreError):
    """Root of what goes wrong between this program, the fabric and the service at its other end."""


class ConfigError(FabricError, ValueError):
    """The folder of configuration cannot work.  Found before anything is connected.

    :ivar path: the file or folder at fault
    :ivar problem: what is wrong with it
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class NoConnectionError(FabricError, ConnectionError):
    """There is no connection to the fabric, it was lost, or the fabric registers no service."""

    def __init__(self, message: str) -> None:
        super().__init__(_errno.ENOTCONN, message)

    def __str__(self) -> str:
        return str(self.strerror)


class NoAnswerError(FabricError, _WaitedError):
    """A request got no answer.  Whether the service carried it out is not known."""


class NotSentError(NoAnswerError):
    """There was no connection to send a request over, so nobody got it."""


class RemoteError(FabricError, RuntimeError):
    """The service, or the fabric in its stead, answered with an error.

    :ivar code: the numeric code of the DXL error response
    :ivar kind: what kind of error txstore's service says it is; empty where something else answered
    :ivar facts: the error's facts as the service sent them
    """

    def __init__(self, message: str, *, code: int, kind: str, facts: Mapping[str, str]) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind
        self.facts = dict(facts)


class GaveUpError(FabricError, _WaitedError):
    """Nothing went forward for ``retry_for`` seconds.  What the store has stays there."""


class InterruptedSendError(FabricError, RuntimeError):
    """The user asked to stop.  What the store has stays there."""


class TransferCancelledError(FabricError, RuntimeError):
    """Somebody cancelled the transfer while it was on its way.  Nothing was stored.

    :ivar file_id: the transfer's id
    """

    def __init__(self, file_id: str) -> None:
        super().__init__(
            f"cancelled: its transfer {file_id} was dropped on the way. To store the file after"
            " all, send it again"
        )
        self.file_id = file_id


class FileChangedError(FabricError, ValueError):
    """A file was changed while it was on its way.  No mixture of both was stored.

    :ivar name: the file
    :ivar file_id: id under which the store keeps what was sent of it; ``None``: it keeps nothing
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.file_id: str | None = None


class DamagedAnswerError(FabricError, RuntimeError):
    """A part of a file does not have the hash that came with it.  It can be got again.

    :ivar name: the file
    :ivar offset: where the part begins (bytes)
    """

    def __init__(self, name: str, offset: int) -> None:
        super().__init__(f"bytes of {name!r} from {offset} on arrived damaged")
        self.name, self.offset = name, offset


class GetRunningError(FabricError, RuntimeError):
    """Another process is getting the same file to the same place.

    :ivar path: the part file that it writes
    """

    def __init__(self, path: str) -> None:
        super().__init__(f"another process is getting the same file into {path!r}")
        self.path = path


class NoFreeIdError(FabricError, ValueError):
    """Every id that a file may have is another transfer's.  Nothing was sent.

    :ivar name: the file
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"every id that {name!r} may have is taken by another transfer")
        self.name = name


class UnsendableTextError(FabricError, ValueError):
    """A text is not UTF-8, as all text in messages is.  Nothing was sent.

    :ivar text: the text
    """

    def __init__(self, text: str, message: str | None = None) -> None:
        super().__init__(message or f"{text!r} is not UTF-8 and cannot be sent")
        self.text = text


class UnsendableNameError(UnsendableTextError):
    """A file's name is not UTF-8.  Nothing was sent.

    :ivar name: the name
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            f"the name {name!r} is not UTF-8 and cannot be sent: give another name to store it as",
        )
        self.name = name
