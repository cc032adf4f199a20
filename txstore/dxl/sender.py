"""Sends files so that they arrive: resumes, repeats, and cancels only when told to."""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from txstore import FileStoreProp, FileStoreResultProp
from txstore.dxl.link import Link, Patience, is_temporary
from txstore.dxl.protocol import (
    LARGEST_SEGMENT,
    MARK,
    STORE_TOPIC,
    ErrorKind,
    StatusAnswer,
    StoredVersion,
    Topics,
    decode_json,
    encode_json,
)
from txstore.errors import (
    FabricError,
    FileChangedError,
    NoAnswerError,
    NoFreeIdError,
    NotSentError,
    RemoteError,
    TransferCancelledError,
    UnsendableNameError,
)
from txstore.source import Source

#: Bytes that a segment of automatic size is never less than, and the tries before it is halved.
SMALLEST_SEGMENT = 32 * 1024
TRIES_A_SIZE = 3

#: Ids tried for one file: each that another transfer holds costs one.
MOST_IDS = 20
_NAMESPACE = uuid.UUID("7ac5f4f0-3f5c-5f0e-9b0a-0d1f6ac0a5d4")

#: Seconds after which a service that does not answer on the status topic is looked at otherwise.
PROBE_TIMEOUT = 5.0


@dataclass(frozen=True)
class SendProgress:
    """How far a file is.

    :ivar file_id: id of the transfer
    :ivar name: name it will be stored under
    :ivar size: bytes of the file
    :ivar sent: bytes that the store has
    :ivar resumed_from: bytes the store had already when this sender came
    """

    file_id: str
    name: str
    size: int
    sent: int
    resumed_from: int


@dataclass(frozen=True)
class SentFile:
    """A file that is stored.

    :ivar file_id: id of the transfer
    :ivar name: name it is stored under
    :ivar size: bytes
    :ivar sha256: SHA-256 of the file, as lower-case hex
    :ivar segments: segments that this sender sent; 0: the file was stored already
    :ivar resumed_from: bytes the store had already when this sender came
    """

    file_id: str
    name: str
    size: int
    sha256: str
    segments: int
    resumed_from: int


Progress = Callable[[SendProgress], None]


class _IdTakenError(FabricError, RuntimeError):
    """The id belongs to other bytes."""


class _MovedError(FabricError, RuntimeError):
    """The store is at another segment than this sender."""


class _TooLargeError(FabricError, RuntimeError):
    """Segments of this size do not get through."""


class FileSender:
    """Sends files to the store behind a topic.  Used by one thread at a time, as its link is.

    :param link: the way to the fabric
    :param store_topic: topic of the store
    :param segment_size: bytes in a segment; ``None``: the most that the broker takes
    :raises ValueError: ``segment_size`` is less than 1, or more than any DXL broker takes
    """

    def __init__(
        self, link: Link, *, store_topic: str = STORE_TOPIC, segment_size: int | None = None
    ) -> None:
        if segment_size is not None and not 1 <= segment_size <= LARGEST_SEGMENT:
            raise ValueError(
                f"segment_size should be from 1 to {LARGEST_SEGMENT} bytes, but is {segment_size}"
            )
        self._link = link
        self._topics = Topics(store_topic)
        self._auto = segment_size is None
        self._segment_size = segment_size or LARGEST_SEGMENT
        self._resumable: bool | None = None

    def send(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        progress: Progress = lambda _: None,
    ) -> SentFile:
        """Send a file, going on where an earlier call for the same file stopped.

        When this returns the file is stored, as durably as the service promises.

        :param path: the file
        :param name: what to store it as; by default its own last part
        :param progress: called at the start and after each segment
        :raises FileChangedError: the file changed on the way; it says what is left in the store
        :raises UnsendableNameError: the name is not UTF-8
        :raises GaveUpError: nothing went forward for the link's ``retry_for`` seconds
        :raises RemoteError: the store refuses
        :raises TransferCancelledError: somebody cancelled it, as far as the service can tell
        :raises InterruptedSendError: the link was stopped
        :raises OSError: the file cannot be read
        """
        name = name or os.path.basename(os.path.abspath(path))
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UnsendableNameError(name) from error
        with Source(path, name) as source:
            if not self._service_resumes():
                return self._send_whole(source, progress)
            for file_id in _ids(source):
                try:
                    return self._send_under(file_id, source, progress)
                except _IdTakenError:
                    continue
                except RemoteError as error:
                    if error.kind not in (ErrorKind.REPEAT, ErrorKind.DAMAGED):
                        raise
        raise NoFreeIdError(name)

    def cancel(self, file_id: str) -> int:
        """Drop an unfinished transfer and its bytes.

        :return: how many segments were dropped; 0: no such transfer
        :raises RemoteError: the store refuses
        :raises GaveUpError: the service did not answer for the link's ``retry_for`` seconds
        """
        fields = {FileStoreProp.ID: file_id, FileStoreProp.RESULT: FileStoreResultProp.CANCEL}
        # Upstream's service wants a number, though it makes no use of it.
        fields[FileStoreProp.SEGMENT_NUMBER] = "1"
        answer = decode_json(self._link.ask(self._topics.store, b"", fields).payload)
        return int(answer[FileStoreProp.SEGMENTS_RECEIVED])

    def status(self, file_id: str) -> StatusAnswer:
        """How far a transfer is."""
        return StatusAnswer.from_json(decode_json(self._ask_status(file_id).payload))

    def _ask_status(self, file_id: str) -> Any:
        return self._link.ask(self._topics.status, encode_json({"file_id": file_id}))

    def _service_resumes(self) -> bool:
        """Whether the service is txstore's.  Upstream's does not listen on the status topic."""
        patience = Patience(self._link)
        while self._resumable is None:
            probe = str(uuid.uuid4())
            try:
                self._link.once(
                    self._topics.status,
                    encode_json({"file_id": probe}),
                    timeout=min(PROBE_TIMEOUT, self._link.answer_timeout),
                )
                self._resumable = True
            except NotSentError as error:
                patience.use(error)
                continue
            except (NoAnswerError, RemoteError):
                # Cancelling what was never begun does nothing, and every service answers it.
                fields = {FileStoreProp.ID: probe, FileStoreProp.SEGMENT_NUMBER: "1"}
                fields[FileStoreProp.RESULT] = FileStoreResultProp.CANCEL
                answer = self._link.ask(self._topics.store, b"", fields)
                self._resumable = MARK in answer.other_fields
            if not self._resumable:
                self._link.notice("the service cannot resume: what fails is sent from its start")
        return self._resumable

    def _send_under(self, file_id: str, source: Source, progress: Progress) -> SentFile:
        status = self.status(file_id)
        point = self._resume_point(status, source)
        resumed_from = source.offset
        sent = 0
        patience = Patience(self._link)
        while point is not None:
            progress(SendProgress(file_id, source.name, source.size, source.offset, resumed_from))
            try:
                data, fields = source.segment(file_id, point + 1, self._segment_size)
                self._deliver(file_id, data, fields)
            except FileChangedError as error:
                error.file_id = file_id if point else None
                raise
            except RemoteError as error:
                if error.kind == ErrorKind.MISMATCH and resumed_from:
                    # A store that does not know its bytes' hash was believed to have this file's.
                    raise _IdTakenError(str(error)) from error
                raise
            except (_MovedError, _TooLargeError) as error:
                # Another sender of the same file may be at it: the pause lets it go ahead.
                patience.use(error)
                before, status = status, self.status(file_id)
                lost_nothing = status.epoch is not None and status.epoch == before.epoch
                if status.state == "unknown" and point and lost_nothing:
                    raise TransferCancelledError(file_id) from error
                point = self._resume_point(status, source)
                continue
            source.acknowledged(data)
            sent += 1
            patience = Patience(self._link)
            point = None if FileStoreProp.RESULT in fields else point + 1
        progress(SendProgress(file_id, source.name, source.size, source.size, resumed_from))
        return SentFile(
            file_id, source.name, source.size, source.sha256(), sent, min(resumed_from, source.size)
        )

    def _deliver(self, file_id: str, data: bytes, fields: dict[str, str]) -> None:
        """Send one segment until it is acknowledged; repeating it changes nothing."""
        patience = Patience(self._link)
        tries = 0
        timeout = self._link.first_timeout(self._topics.store)
        while True:
            try:
                self._link.once(self._topics.store, data, fields, timeout=timeout)
                return
            except NoAnswerError as error:
                tries += 1
                timeout = self._link.next_timeout(timeout, error)
                patience.use(error)
                # Only while small requests are answered can the segment's size be the reason.
                self._ask_status(file_id)
                if self._auto and tries >= TRIES_A_SIZE and len(data) > SMALLEST_SEGMENT:
                    self._segment_size = max(len(data) // 2, SMALLEST_SEGMENT)
                    raise _TooLargeError(f"segments of {len(data)} bytes get no answer") from error
            except RemoteError as error:
                self._judge(error, patience)

    @staticmethod
    def _judge(error: RemoteError, patience: Patience) -> None:
        """Pause if the same segment can be sent again, else raise what is to be done."""
        if is_temporary(error):
            patience.use(error)
        elif error.kind == ErrorKind.SEQUENCE:
            raise _MovedError(str(error)) from error
        else:
            raise error

    def _resume_point(self, status: StatusAnswer, source: Source) -> int | None:
        """Number of the last segment the store has, with ``source`` set behind its bytes.

        ``None`` if the whole file is stored already.

        :raises _IdTakenError: the store has other bytes under this id
        """
        if status.state == "unknown":
            source.rewind()
            return 0
        if status.state == "stored":
            if not self._is_stored(source):
                raise _IdTakenError("the file stored under this id is another one by now")
            return None
        if not _begins_with(source, status.bytes_received, status.sha256):
            raise _IdTakenError("the store has other bytes under this id")
        return status.segments_received

    def _is_stored(self, source: Source) -> bool:
        try:
            answer = self._link.ask(
                self._topics.get, encode_json({"name": source.name, "length": 0})
            )
        except RemoteError:
            return False
        version = StoredVersion.from_fields(answer.other_fields)
        return version.size == source.size and _begins_with(source, source.size, version.sha256)

    def _send_whole(self, source: Source, progress: Progress) -> SentFile:
        """To upstream's service: it forgets and cannot tell, so each failure begins anew."""
        patience = Patience(self._link)
        refusal = ""
        while True:
            file_id = str(uuid.uuid4())
            source.rewind()
            number = 0
            try:
                while number == 0 or source.offset < source.size:
                    progress(SendProgress(file_id, source.name, source.size, source.offset, 0))
                    number += 1
                    data, fields = source.segment(file_id, number, self._segment_size)
                    self._link.once(self._topics.store, data, fields)
                    source.acknowledged(data)
            except FileChangedError:
                self._drop(file_id)
                raise
            except (NoAnswerError, RemoteError) as error:
                self._drop(file_id)
                if isinstance(error, RemoteError) and not is_temporary(error):
                    # It may have forgotten the file, but hardly twice before the same last segment.
                    last = FileStoreProp.RESULT in fields
                    if number == 1 or (last and str(error) == refusal):
                        raise
                    refusal = str(error) if last else ""
                patience.use(error)
                continue
            progress(SendProgress(file_id, source.name, source.size, source.size, 0))
            return SentFile(file_id, source.name, source.size, source.sha256(), number, 0)

    def _drop(self, file_id: str) -> None:
        """Nobody will go on with this id, and upstream's service would keep its bytes for ever."""
        try:
            self.cancel(file_id)
        except RemoteError as error:
            self._link.notice(f"what was sent could not be cancelled: {error}")


def _ids(source: Source) -> Iterator[str]:
    """The ids a file may be sent under, the same ones each time, best first.

    They depend on the machine, so that senders of different files with one name do not meet, and on
    size and time, so that a changed file does not go on where the old one stopped.
    """
    facts = [source.name, platform.node(), source.path, source.size, source.mtime_ns]
    for attempt in range(MOST_IDS):
        yield str(uuid.uuid5(_NAMESPACE, json.dumps([*facts, attempt])))
    yield str(uuid.uuid4())


def _begins_with(source: Source, size: int, sha256: str | None) -> bool:
    """Whether the bytes that the store has are the first of a file, which is set behind them.

    :param sha256: their hex hash; ``None`` if the store does not know it
    """
    if size > source.size:
        return False
    for _ in source.move_to(size):
        pass
    return sha256 is None or source.sha256() == sha256.lower()
