"""Messages as a sender makes them, and the transfers they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from txstore.constants import FileStoreProp, FileStoreResultProp


@dataclass(frozen=True)
class Message:
    """What a store reads of a ``dxlclient.message.Message``, without the fabric around it.

    :ivar payload: the segment's bytes
    :ivar other_fields: names and values, all text on the wire
    """

    payload: Any = b""
    other_fields: Any = field(default_factory=dict)


class Result(Protocol):
    """What is read of an answer."""

    @property
    def file_id(self) -> str: ...

    @property
    def segments_received(self) -> int: ...

    @property
    def file_result(self) -> str | None: ...

    def to_dict(self) -> Mapping[str, Any]: ...


class Store(Protocol):
    """Anything that takes messages as a ``FileStoreManager`` does."""

    def store_segment(self, message: Any, /) -> Any: ...


def segment(number: int, payload: bytes, file_id: str | None = None, **fields: object) -> Message:
    """A message that carries a segment.

    :param file_id: id of its transfer; ``None`` leaves it out, as on a first segment
    :param fields: further fields; their values are sent as text
    """
    sent: dict[str, str] = {FileStoreProp.SEGMENT_NUMBER: str(number)}
    if file_id is not None:
        sent[FileStoreProp.ID] = file_id
    sent.update((name, str(value)) for name, value in fields.items())
    return Message(payload, sent)


def cancel(file_id: str | None = None) -> Message:
    """A message that cancels a transfer."""
    sent = {FileStoreProp.RESULT: FileStoreResultProp.CANCEL}
    if file_id is not None:
        sent[FileStoreProp.ID] = file_id
    return Message(b"", sent)


@dataclass(frozen=True)
class Transfer:
    """One file on its way: what a sender has, and the messages it makes of it.

    :ivar name: name to store the file under
    :ivar segments: its bytes, cut up; at least one
    :ivar file_id: id that the sender chose; ``None``: the store assigns one
    """

    name: str
    segments: tuple[bytes, ...]
    file_id: str | None = None

    @classmethod
    def of(
        cls, content: bytes, name: str, *, segment_size: int = 50 * 1024, file_id: str | None = None
    ) -> Transfer:
        """A transfer of ``content`` in segments of equal size; the last may be shorter."""
        starts = range(0, max(1, len(content)), segment_size)
        return cls(name, tuple(content[at : at + segment_size] for at in starts), file_id)

    @property
    def content(self) -> bytes:
        """The whole file."""
        return b"".join(self.segments)

    def message(self, number: int, file_id: str | None = None) -> Message:
        """The message with segment ``number``, from 1; the last asks to store the file.

        :param file_id: id that the store assigned, where the sender chose none
        """
        payload = self.segments[number - 1]
        known = self.file_id if self.file_id is not None else file_id
        if number < len(self.segments):
            return segment(number, payload, known)
        content = self.content
        return segment(
            number,
            payload,
            known,
            result=FileStoreResultProp.STORE,
            name=self.name,
            size=len(content),
            hash_sha256=hashlib.sha256(content).hexdigest(),
        )

    def messages(self, file_id: str | None = None) -> tuple[Message, ...]:
        """All messages, in order."""
        return tuple(self.message(number, file_id) for number in range(1, len(self.segments) + 1))

    def send(self, store: Store, *, first: int = 1, file_id: str | None = None) -> Any:
        """Send the messages from number ``first`` on, in order.

        :param file_id: id that the store assigned earlier, where ``first`` is not 1 and the sender
            chose none
        :return: the answer to the last
        """
        answer = None
        for number in range(first, len(self.segments) + 1):
            answer = store.store_segment(self.message(number, file_id))
            file_id = answer.file_id
        return answer
