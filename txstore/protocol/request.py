"""A message, checked: what the sender asks for, in types that the rest can rely on; its answer.

Pure: reads the message's two attributes and nothing else.  The checks run in the contract's order
(segment number, file id, name, size, result and its fields, payload) and the first that fails
decides.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from txstore.errors import FieldError, FileMismatchError, RepeatMismatchError, SequenceError
from txstore.protocol.constants import FileStoreProp, FileStoreResultProp
from txstore.protocol.names import NameRules

_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}\Z")
_MOST = 10**100  # longer numbers Python may refuse to write into a message
_ID_LENGTH = 255
_ID_FORBIDDEN = re.compile(r"[./\\\0]")


class Message(Protocol):
    """What is read of a ``dxlclient.message.Message``."""

    @property
    def payload(self) -> Any: ...

    @property
    def other_fields(self) -> Any: ...


@dataclass(frozen=True)
class LocalMessage:
    """A message from this machine, of a file whose mode and time are to be kept.

    By its type: a field of a message, or an attribute of just any, a sender elsewhere could set.

    :ivar like: what ``stat`` says of the file, with each message: nobody whom its mode keeps out
        can read what is stored of it at any moment
    """

    payload: Any
    other_fields: Any
    like: os.stat_result


@dataclass(frozen=True)
class FileClaim:
    """What a ``store`` message says of the whole file.

    :ivar name: as received, for messages to people
    :ivar path: normalised, relative to the storage dir
    :ivar size: bytes
    :ivar sha256: the 32 bytes of the hash
    """

    name: str
    path: str
    size: int
    sha256: bytes


@dataclass
class SegmentRequest:
    """A checked request.  Nobody changes it; that it could be changed takes half the time to make.

    :ivar given_id: the transfer's id, ``None`` where the sender gave none
    :ivar number: segment number, from 1; 0 for a cancel, where it does not count
    :ivar payload: the segment's bytes
    :ivar cancel: whether the transfer is to be dropped
    :ivar store: what the file should be, on the last segment; else ``None``
    :ivar name: what the file is to be called, as far as this segment says so
    :ivar path: that, normalised, relative to the storage dir
    :ivar size: bytes that the whole file has, likewise
    :ivar like: that of a ``LocalMessage``
    :ivar sender: who sent a message that ends a transfer, where that is known
    :ivar file_id: the id given, or a fresh lower-case uuid4
    """

    given_id: str | None
    number: int
    payload: bytes
    cancel: bool = False
    store: FileClaim | None = None
    name: str | None = None
    path: str | None = None
    size: int | None = None
    like: os.stat_result | None = None
    sender: str | None = None
    file_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.file_id = self.given_id or str(uuid.uuid4())

    def out_of_turn(self, segments: int) -> SequenceError:
        """The error for a number that does not follow ``segments`` recorded ones."""
        kind = RepeatMismatchError if segments and self.number == segments else SequenceError
        return kind(expected=segments + 1, received=self.number, file_id=self.given_id)

    def mismatch(self, claim: FileClaim, size: int, sha256: bytes) -> FileMismatchError:
        """The error for bytes received that are not what the last message claims."""
        return FileMismatchError(
            expected_size=claim.size,
            received_size=size,
            expected_sha256=claim.sha256.hex(),
            received_sha256=sha256.hex(),
            file_id=self.given_id,
        )


class FileStoreSegmentResult:
    """The answer to a message: what is acknowledged.

    :param file_id: the transfer's id
    :param segments_received: number of segments received so far
    :param file_result: a member of ``FileStoreResultProp``
    """

    def __init__(
        self,
        file_id: str,
        segments_received: int,
        file_result: str | None = FileStoreResultProp.NONE,
    ) -> None:
        self._file_id = file_id
        self._segments_received = segments_received
        self._file_result = file_result

    @property
    def file_id(self) -> str:
        """The transfer's id."""
        return self._file_id

    @property
    def segments_received(self) -> int:
        """Number of segments received so far."""
        return self._segments_received

    @property
    def file_result(self) -> str | None:
        """What was done with the file as a whole, a member of ``FileStoreResultProp``; ``NONE``
        after a segment that was not the last."""
        return self._file_result

    def to_dict(self) -> dict[str, str | int]:
        """The answer as it travels: ``result`` only where there is one."""
        fields: dict[str, str | int] = {
            FileStoreProp.ID: self._file_id,
            FileStoreProp.SEGMENTS_RECEIVED: self._segments_received,
        }
        if self._file_result:
            fields[FileStoreProp.RESULT] = self._file_result
        return fields

    def __repr__(self) -> str:
        return f"FileStoreSegmentResult({self.to_dict()!r})"


def parse(message: Message, rules: NameRules) -> SegmentRequest:
    """Check a message without looking at the disk or at any transfer.

    :raises RequestError: the first check that failed
    """
    try:
        fields = message.other_fields
    except AttributeError as error:
        raise _no_message(message, "other_fields") from error
    if type(fields) is not dict and not isinstance(fields, Mapping):
        raise FieldError(
            f"other_fields must be a mapping of names to text, not {type(fields).__name__}.",
            field="other_fields",
            received=fields,
        )
    result = fields.get(FileStoreProp.RESULT)
    if result == FileStoreResultProp.CANCEL:
        file_id = check_file_id(fields.get(FileStoreProp.ID))
        return SegmentRequest(file_id, 0, b"", cancel=True, sender=_sender(message))

    number = _segment_number(fields)
    file_id = check_file_id(fields.get(FileStoreProp.ID), number)
    name = fields.get(FileStoreProp.NAME)
    path = rules.normalise(name, file_id) if name is not None and name != "" else None
    size = _size(fields, file_id)
    store = None
    if result == FileStoreResultProp.STORE:
        store = FileClaim(
            _required(name if path else None, FileStoreProp.NAME, file_id),
            _required(path, FileStoreProp.NAME, file_id),
            _required(size, FileStoreProp.SIZE, file_id),
            _sha256(fields, file_id),
        )
    elif result is not None and result != "":
        raise FieldError(
            f"The field {FileStoreProp.RESULT!r} must be {FileStoreResultProp.STORE!r} or"
            f" {FileStoreResultProp.CANCEL!r} on a last segment and absent on others,"
            f" not {_shown(result)}.",
            field=FileStoreProp.RESULT,
            received=result,
            file_id=file_id,
        )
    try:
        payload = message.payload
    except AttributeError as error:
        raise _no_message(message, "payload") from error
    if type(payload) is not bytes:
        payload = _payload(payload, file_id)
    like = message.like if isinstance(message, LocalMessage) else None
    sender = _sender(message) if store is not None else None
    return SegmentRequest(
        file_id, number, payload, False, store, name or None, path, size, like, sender
    )


def _sender(message: object) -> str | None:
    """Who sent a message, as messages of dxlclient say; nothing rests on it, so what cannot be
    shown is left out."""
    sender = getattr(message, "source_client_id", None)
    if isinstance(sender, str) and sender.isprintable() and 0 < len(sender) <= _ID_LENGTH:
        return sender
    return None


def _no_message(message: object, missing: str) -> FieldError:
    return FieldError(
        "A message must have the attributes payload and other_fields, as those of dxlclient"
        f" have; this is {type(message).__name__}.",
        field=missing,
        received=message,
    )


def check_file_id(value: object, number: int = 1) -> str | None:
    """The sender's id; ``None`` where none was given.

    :param number: the segment's number; only a first segment may come without an id
    :raises FieldError: it is not one the store takes
    :raises SequenceError: it is missing on a later segment
    """
    if value is None or value == "":
        if number > 1:
            raise SequenceError(
                expected=1,
                received=number,
                file_id=None,
                message=(
                    f"Segment {number} came without a file id. Send the file id that the answer to"
                    " segment 1 gave, or start at segment 1."
                ),
            )
        return None
    if not isinstance(value, str):
        _refuse_id(value, f"text, not {type(value).__name__}")
    if len(value) > _ID_LENGTH:
        _refuse_id(value, f"at most {_ID_LENGTH} characters long, not {len(value)}")
    if _ID_FORBIDDEN.search(value):
        _refuse_id(value, "without '.', '/', '\\' and NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse_id(value, "text that UTF-8 can encode")
    return value


def require_file_id(value: object) -> str:
    """The id of a transfer that a caller names.

    :raises FieldError: it is missing, or not one the store takes
    """
    file_id = check_file_id(value)
    if file_id is None:
        _refuse_id(value, "given")
    return file_id


def _refuse_id(value: object, rule: str) -> NoReturn:
    raise FieldError(
        f"A file id must be {rule}: {value!r:.300}. Choose another id.",
        field=FileStoreProp.ID,
        received=value,
    )


def _integer(value: object) -> int | None:
    """``value`` as a whole number that can be shown, or ``None`` where it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        number = int(value)
    except ValueError:
        return None
    return number if -_MOST <= number <= _MOST else None


def _shown(value: object) -> str:
    """``value`` as it stands in a message to people."""
    try:
        return f"{value!r:.100}"
    except ValueError:  # Python refuses to write very long numbers
        return "a number too long to show"


def _segment_number(fields: Mapping[str, Any]) -> int:
    value = fields.get(FileStoreProp.SEGMENT_NUMBER)
    number = _integer(value)
    if number is None or number < 1:
        missing = FileStoreProp.SEGMENT_NUMBER not in fields
        came = "it is missing" if missing else f"{_shown(value)} came"
        raise FieldError(
            f"The field {FileStoreProp.SEGMENT_NUMBER!r} must be a whole number from 1,"
            f" but {came}.",
            field=FileStoreProp.SEGMENT_NUMBER,
            received=value,
        )
    return number


def _size(fields: Mapping[str, Any], file_id: str | None) -> int | None:
    value = fields.get(FileStoreProp.SIZE)
    if value is None:
        return None
    size = _integer(value)
    if size is None or size < 0:
        raise FieldError(
            f"The field {FileStoreProp.SIZE!r} must be the file's size in bytes, a whole number"
            f" from 0, but {_shown(value)} came.",
            field=FileStoreProp.SIZE,
            received=value,
            file_id=file_id,
        )
    return size


def _sha256(fields: Mapping[str, Any], file_id: str | None) -> bytes:
    value = fields.get(FileStoreProp.HASH_SHA256)
    if not isinstance(value, str) or not _SHA256_HEX.match(value):
        raise FieldError(
            f"The field {FileStoreProp.HASH_SHA256!r} must be the file's SHA-256 as 64 hex digits,"
            f" but {_shown(value)} came.",
            field=FileStoreProp.HASH_SHA256,
            received=value,
            file_id=file_id,
        )
    return bytes.fromhex(value)


def _required(value: Any, field: str, file_id: str | None) -> Any:
    if value is None:
        raise FieldError(
            f"The field {field!r} is missing or empty: a last segment that asks to store the file"
            f" must carry {FileStoreProp.NAME!r}, {FileStoreProp.SIZE!r} and"
            f" {FileStoreProp.HASH_SHA256!r}. Send it again with all three.",
            field=field,
            file_id=file_id,
        )
    return value


def _payload(value: object, file_id: str | None) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    try:
        view = memoryview(value)  # type: ignore[arg-type]  # a TypeError is the check
    except (TypeError, ValueError):  # no buffer, or one that was released
        view = None
    if view is None or not view.c_contiguous:
        raise FieldError(
            f"The payload must be bytes or another contiguous buffer, not {type(value).__name__}.",
            field="payload",
            received=type(value).__name__,
            file_id=file_id,
        )
    return view.tobytes()
