"""What travels between the service and its clients: topics, fields, answers.  No I/O here.

A store answers on four topics.  Storing is upstream's; the other three lie under it, so that
stores with topics of their own on one fabric never answer for each other:

================  ==================================  ==========================================
topic             request                             answer
================  ==================================  ==========================================
``T``             a segment (``txstore.constants``)   JSON: the segment's result
``T/status``      JSON ``file_id``                    JSON: :class:`StatusAnswer`
``T/list``        JSON ``after``, ``limit``           JSON ``files``, ``next``
``T/get``         JSON ``name``, ``offset``,          the bytes as payload; :class:`StoredVersion`
                  ``length``, optional ``version``    and the bytes' own hash in the fields
================  ==================================  ==========================================

Every answer carries the field :data:`MARK`; upstream's service does not send it.  Errors come as
DXL error responses with the code 0, as upstream's do; their fields say the :class:`ErrorKind`.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from txstore import errors

SERVICE_TYPE = "/opendxl-file-transfer/service/file-transfer"
STORE_TOPIC = SERVICE_TYPE + "/file/store"

#: Field of every answer of this service, and the version of the protocol it speaks.
MARK = "txstore"
VERSION = "1"

#: Set in the codes of errors that come from the fabric itself: nobody serves the topic, or not now.
FABRIC_ERROR = 0x80000000

#: Bytes a message may have in all on a DXL broker, and what is left free for everything that is not
#: the segment: names, identifiers, and what brokers add (``dxl.certs`` holds certificates).
MESSAGE_LIMIT = 1024 * 1024
MESSAGE_HEADROOM = 16 * 1024
LARGEST_SEGMENT = MESSAGE_LIMIT - MESSAGE_HEADROOM

#: Characters of an error that are sent or logged: a request's own text, sent back escaped, might be
#: more than a message holds.
LONGEST_TEXT = 1000


class ErrorKind(str, enum.Enum):
    """What a client can do about an error; sent as the field ``error``."""

    REFUSED = "refused"  #: the request is wrong and will be so again
    SEQUENCE = "sequence"  #: another segment is due; field ``expected``
    REPEAT = "repeat"  #: the last segment came again with other content
    MISMATCH = "mismatch"  #: size or hash does not match; the transfer was ended
    DAMAGED = "damaged"  #: what was received is lost; start under another id
    NOT_FOUND = "not_found"  #: no such stored file
    CHANGED = "changed"  #: the stored file is not the version asked for
    UNAVAILABLE = "unavailable"  #: the service cannot now (disk, locks); try again


@dataclass(frozen=True)
class Topics:
    """The topics of one store.

    :ivar store: the topic that takes segments
    """

    store: str = STORE_TOPIC

    @property
    def status(self) -> str:
        """Topic that answers how far a transfer is."""
        return self.store + "/status"

    @property
    def listing(self) -> str:
        """Topic that lists the stored files."""
        return self.store + "/list"

    @property
    def get(self) -> str:
        """Topic that hands out a stored file."""
        return self.store + "/get"


def checked_topic(text: str) -> str:
    """The text, if messages can be sent to it.

    :raises ValueError: if not
    """
    if not text or set(text) & set("#+\0"):
        raise ValueError(f"should be a topic such as {STORE_TOPIC}, but is {text!r}")
    return text


@dataclass(frozen=True)
class StatusAnswer:
    """How far a transfer is.

    :ivar file_id: the id asked for
    :ivar state: ``unknown``, ``receiving`` or ``stored``
    :ivar segments_received: number of the last segment received
    :ivar bytes_received: bytes received
    :ivar sha256: hex SHA-256 of those bytes, ``None`` where the store does not know it
    :ivar epoch: as long as this is the same, nothing that was acknowledged can have been lost: what
        is unknown then was cancelled, or expired.  ``None``: not told
    """

    file_id: str
    state: str
    segments_received: int = 0
    bytes_received: int = 0
    sha256: str | None = None
    epoch: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StatusAnswer:
        """From decoded JSON; what a later version adds is left out.

        :raises TypeError: something is missing
        """
        return cls(**_known(cls, value))


@dataclass(frozen=True)
class StoredVersion:
    """Which file lay under a name when a request for it was answered.

    :ivar size: bytes
    :ivar mtime_ns: time of the last change, in ns since 1970 by the store's clock
    :ivar sha256: hex SHA-256 of the whole file
    """

    size: int
    mtime_ns: int
    sha256: str

    def to_fields(self) -> dict[str, str]:
        """As message fields."""
        return {"size": str(self.size), "mtime_ns": str(self.mtime_ns), "sha256": self.sha256}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> StoredVersion:
        """From message fields or decoded JSON.

        :raises errors.FieldError: if one is missing or malformed
        """
        try:
            # By way of text, since int() would take fractions and truth values.
            size, mtime_ns = (int(str(fields[each])) for each in ("size", "mtime_ns"))
            sha256 = fields["sha256"]
        except (KeyError, TypeError, ValueError) as error:
            raise _no_version(fields) from error
        if not isinstance(sha256, str):
            raise _no_version(fields)
        return cls(size, mtime_ns, sha256)


@dataclass(frozen=True)
class ListedFile:
    """One line of the list of stored files.

    :ivar name: path below the storage dir, with ``/``
    :ivar size: bytes
    :ivar mtime_ns: ns since 1970 by the store's clock
    :ivar sha256: hex SHA-256 where the store knows it without reading the file, else ``None``
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ListedFile:
        """From decoded JSON; what a later version adds is left out.

        :raises TypeError: something is missing
        """
        return cls(**_known(cls, value))


@dataclass(frozen=True)
class Reply:
    """An answer to be sent: payload and fields of a DXL response."""

    payload: bytes
    fields: Mapping[str, str]


@dataclass(frozen=True)
class ErrorReply:
    """An error to be sent: text and fields of a DXL error response."""

    text: str
    fields: Mapping[str, str]


def json_reply(value: object) -> Reply:
    """An answer whose payload is ``value`` as JSON (ASCII, so that any file name survives)."""
    return Reply(json.dumps(value).encode("ascii"), {MARK: VERSION})


def status_reply(answer: StatusAnswer) -> Reply:
    """The answer on ``T/status``."""
    return json_reply(asdict(answer))


def encode_json(value: Mapping[str, object]) -> bytes:
    """A request's payload."""
    return json.dumps(value).encode("ascii")


def decode_json(payload: bytes | None) -> dict[str, Any]:
    """A JSON object from a payload; other programs' trailing NULs are taken off.

    :raises errors.FieldError: if it is not one
    """
    if payload is not None and not isinstance(payload, bytes):
        raise errors.FieldError("The payload should be a JSON object, as bytes", field="payload")
    try:
        value = json.loads((payload or b"{}").rstrip(b"\0") or b"{}")
    except (ValueError, RecursionError) as error:
        raise errors.FieldError(
            f"The payload should be a JSON object, but is not: {error}", field="payload"
        ) from error
    if not isinstance(value, dict):
        raise errors.FieldError("The payload should be a JSON object", field="payload")
    return value


_KINDS: tuple[tuple[type[BaseException], ErrorKind], ...] = (
    (errors.RepeatMismatchError, ErrorKind.REPEAT),
    (errors.SequenceError, ErrorKind.SEQUENCE),
    (errors.FileMismatchError, ErrorKind.MISMATCH),
    (errors.StagingDamagedError, ErrorKind.DAMAGED),
    (errors.RequestedVersionError, ErrorKind.CHANGED),
    (errors.NoSuchFileError, ErrorKind.NOT_FOUND),
    (ValueError, ErrorKind.REFUSED),
)


def brief(text: str) -> str:
    """A text that can be packed into a message, cut to :data:`LONGEST_TEXT`."""
    cut = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "..."
    # A file name that is not UTF-8 holds lone surrogates, which cannot be packed.
    return cut.encode("utf-8", "backslashreplace").decode("utf-8")


def error_reply(error: Exception) -> ErrorReply:
    """The answer that tells a client what ``error`` is and what it can do about it."""
    kind = next((kind for cls, kind in _KINDS if isinstance(error, cls)), ErrorKind.UNAVAILABLE)
    sent = {MARK: VERSION, "error": kind.value}
    for fact in ("expected", "received", "file_id"):
        value = getattr(error, fact, None)
        if value is not None:
            sent[fact] = brief(str(value))
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, errors.TxStoreError):
        # A sender would take it for an error of its own disk.
        text = f"The service cannot do this now: {error.strerror or error}"
    return ErrorReply(brief(text), sent)


def _no_version(received: object) -> errors.FieldError:
    return errors.FieldError(
        "The version of a stored file should be its size, mtime_ns and sha256 as answered before",
        field="version",
        received=received,
    )


def _known(cls: type[StatusAnswer | ListedFile], value: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: value[field.name] for field in fields(cls) if field.name in value}
