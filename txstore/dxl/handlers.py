"""What the service answers to each request.  Knows the store and the protocol, not the fabric."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, BinaryIO

from txstore import FileStoreManager, FileStoreProp, FileStoreResultProp
from txstore.disk import Disk
from txstore.dxl.config import ServiceConfig
from txstore.dxl.logs import about_transfer
from txstore.dxl.protocol import (
    LARGEST_SEGMENT,
    MARK,
    VERSION,
    ErrorReply,
    ListedFile,
    Reply,
    StatusAnswer,
    StoredVersion,
    brief,
    decode_json,
    error_reply,
    json_reply,
    status_reply,
)
from txstore.errors import (
    BusyError,
    FieldError,
    NameRefusedError,
    NoSuchFileError,
    ReplacedError,
    RequestedVersionError,
    RequestError,
    TxStoreError,
)
from txstore.protocol.stored import OpenedFile

logger = logging.getLogger(__name__)

#: Files a page of the list has at most, and bytes after which it ends before that.
PAGE = 1000
PAGE_BYTES = LARGEST_SEGMENT - 64 * 1024

#: Hashes of files without a completion that a worker remembers, and seconds that a request
#: waits for its turn to read such a file.
HASHES_KEPT = 1024
READING_TIMEOUT = 1.0

#: What opening a name says where nothing lies that could be handed out.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENXIO)


class StoreHandlers:
    """The service's four answers, one method a topic.

    Each takes a message (``.payload``, ``.other_fields``) and returns what to send back; none
    raises.  Safe to call from any number of threads.

    :param on_replaced: called when the store turns out to be removed or replaced; until the manager
        is opened anew every request will fail
    """

    def __init__(
        self,
        manager: FileStoreManager,
        config: ServiceConfig,
        on_replaced: Callable[[ReplacedError], None] = lambda _: None,
    ) -> None:
        self._manager = manager
        self._on_replaced = on_replaced
        self._config = config
        level = config.durability
        # Below this level a power loss may take what was acknowledged.
        self._epoch = level if level == "segment" else Disk().boot_id() or None
        self._hashes = _HashCache(HASHES_KEPT)

    def by_topic(self) -> dict[str, Callable[[Any], Reply | ErrorReply]]:
        """The handlers and the topics they answer on."""
        topics = self._config.topics
        return {
            topics.store: self.store,
            topics.status: self.status,
            topics.listing: self.list_files,
            topics.get: self.get,
        }

    def store(self, message: Any) -> Reply | ErrorReply:
        """A segment, the last segment or a cancel."""
        return self._answer(self._store, message)

    def status(self, message: Any) -> Reply | ErrorReply:
        """How far a transfer is; one that is unknown is answered as such."""
        return self._answer(self._status, message)

    def list_files(self, message: Any) -> Reply | ErrorReply:
        """A page of the stored files, by name."""
        return self._answer(self._list, message)

    def get(self, message: Any) -> Reply | ErrorReply:
        """A piece of a stored file."""
        return self._answer(self._get, message)

    def _answer(self, handler: Callable[[Any], Reply], message: Any) -> Reply | ErrorReply:
        try:
            return handler(message)
        except RequestError as error:
            logger.info("Refused: %s", brief(str(error)))
            return error_reply(error)
        except (TxStoreError, OSError) as error:
            logger.error("Failed: %s", brief(f"{_subject(message)}: {self._explained(error)}"))
            if isinstance(error, ReplacedError):
                self._on_replaced(error)
            return error_reply(error)
        except Exception as error:
            # Whatever it was, the sender has to hear of it, or it waits for nothing.
            logger.exception("A request could not be answered")
            return error_reply(error)

    def _explained(self, error: Exception) -> str:
        """The error, with the folders where the kernel did not say which file it is about."""
        if not isinstance(error, OSError) or error.filename is not None:
            return str(error)
        return f"{error} (below {self._manager.working_dir} or {self._manager.storage_dir})"

    def _store(self, message: Any) -> Reply:
        fields = message.other_fields
        result = self._manager.store_segment(message)
        # A transfer that is cancelled the store logs itself.
        if result.file_result == FileStoreResultProp.STORE:
            about_transfer(result.file_id)
            logger.info(
                "Stored %r: %d bytes, SHA-256 %s, %d segments, id %r",
                *(fields[FileStoreProp.NAME], int(fields[FileStoreProp.SIZE])),
                *(fields[FileStoreProp.HASH_SHA256], result.segments_received, result.file_id),
            )
        return json_reply(result.to_dict())

    def _status(self, message: Any) -> Reply:
        file_id = decode_json(message.payload).get("file_id")
        if not isinstance(file_id, str) or not file_id:
            raise FieldError("A file_id should be given", field="file_id", received=file_id)
        status = self._manager.status(file_id)
        if status is None:
            return status_reply(StatusAnswer(file_id, "unknown", epoch=self._epoch))
        return status_reply(
            StatusAnswer(
                file_id,
                status.state,
                status.segments_received,
                status.bytes_received,
                status.sha256,
                self._epoch,
            )
        )

    def _list(self, message: Any) -> Reply:
        request = decode_json(message.payload)
        after = request.get("after")
        if after is not None and not _is_name(after):
            raise FieldError("after should be a name", field="after", received=after)
        limit = min(_number(request, "limit", PAGE), PAGE)
        page: list[dict[str, object]] = []
        size = 0
        for name, length, mtime_ns, sha256 in self._manager.stored(after, limit):
            line = vars(ListedFile(name, length, mtime_ns, sha256))
            page.append(line)
            size += len(json.dumps(line))
            if size > PAGE_BYTES:
                break
        full = bool(page) and (len(page) == limit or size > PAGE_BYTES)
        return json_reply({"files": page, "next": page[-1]["name"] if full else None})

    def _get(self, message: Any) -> Reply:
        request = decode_json(message.payload)
        name = request.get("name")
        if not isinstance(name, str) or not name:
            raise FieldError("The name of a stored file should be given", field="name")
        offset = _number(request, "offset", 0)
        length = min(_number(request, "length", 0), LARGEST_SEGMENT)
        try:
            opened = self._manager.open_stored(name)
        except PermissionError as error:
            raise RequestError(f"The file {name!r:.100} cannot be read by the service") from error
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise NoSuchFileError(f"No file {name!r:.100} is stored") from error
        except NameRefusedError as error:
            raise RequestError(f"The name {name!r:.100} is refused: {error.reason}") from error
        with opened.file as file:
            version = StoredVersion(opened.size, opened.mtime_ns, self._hash_of(opened, name))
            wanted = request.get("version")
            if wanted is not None and StoredVersion.from_fields(wanted) != version:
                raise RequestedVersionError(
                    f"The file {name!r:.100} is another now. Get it again from its start"
                )
            # Further than its end there is nothing, and no file system has every number's place.
            file.seek(min(offset, opened.size))
            data = file.read(length)
            if opened.changed():
                raise RequestedVersionError(f"The file {name!r:.100} was changed while it was read")
        fields = {MARK: VERSION, "offset": str(offset), **version.to_fields()}
        return Reply(data, {**fields, "segment_sha256": hashlib.sha256(data).hexdigest()})

    def _hash_of(self, opened: OpenedFile, name: str) -> str:
        if opened.sha256 is not None:
            return opened.sha256
        sha256 = self._hashes.get(opened.identity, opened.file)
        if opened.changed():
            raise RequestedVersionError(f"The file {name!r:.100} was changed while it was read")
        return sha256


def _file(fields: Mapping[str, Any]) -> str:
    name = fields.get(FileStoreProp.NAME)
    file_id = fields.get(FileStoreProp.ID)
    what = f"The file {name!r:.100}" if name else "The file"
    return f"{what} with id {file_id!r:.300}" if file_id else what


def _subject(message: Any) -> str:
    """What a request is about, as far as it says so."""
    fields = message.other_fields
    if not isinstance(fields, Mapping) or FileStoreProp.SEGMENT_NUMBER not in fields:
        return f"A request: {message.payload!r:.300}"
    return f"{_file(fields)}, segment {fields[FileStoreProp.SEGMENT_NUMBER]!r:.20}"


def _is_name(value: object) -> bool:
    """Whether it is text that a file system's names can hold."""
    if not isinstance(value, str):
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def _number(request: dict[str, Any], field: str, default: int) -> int:
    value = request.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise FieldError(f"{field} should be a number from 0", field=field, received=value)
    return value


class _HashCache:
    """SHA-256 of files, read once as long as they stay the same."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._hashes: OrderedDict[Hashable, str] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    def get(self, identity: Hashable, file: BinaryIO) -> str:
        """The hash of an open file.

        :raises BusyError: another file is being read, and will be for a while
        """
        known = self._known(identity)
        if known is not None:
            return known
        # A large file takes minutes.  Requests for it and others, which clients repeat, must not
        # keep all threads of the service waiting for it.
        if not self._reading.acquire(timeout=READING_TIMEOUT):
            raise BusyError("The service is reading another file for its hash. Try again later")
        try:
            known = self._known(identity)
            if known is None:
                file.seek(0)
                digest = hashlib.sha256()
                while block := file.read(1024 * 1024):
                    digest.update(block)
                known = digest.hexdigest()
        finally:
            self._reading.release()
        with self._lock:
            self._hashes[identity] = known
            while len(self._hashes) > self._kept:
                self._hashes.popitem(last=False)
        return known

    def _known(self, identity: Hashable) -> str | None:
        with self._lock:
            if identity in self._hashes:
                self._hashes.move_to_end(identity)
            return self._hashes.get(identity)
