"""Gets stored files back, and lists them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from txstore.dxl.link import Link
from txstore.dxl.protocol import (
    LARGEST_SEGMENT,
    STORE_TOPIC,
    ErrorKind,
    ListedFile,
    StoredVersion,
    Topics,
    decode_json,
    encode_json,
)
from txstore.errors import (
    DamagedAnswerError,
    FabricError,
    FileChangedError,
    GetRunningError,
    RemoteError,
)

_BLOCK = 1024 * 1024
_PART = ".txstore-part"


class FileFetcher:
    """Reads from the store behind a topic.  Used by one thread at a time, as its link is.

    :param link: the way to the fabric
    :param store_topic: topic of the store
    :param segment_size: bytes that an answer brings at most
    """

    def __init__(
        self, link: Link, *, store_topic: str = STORE_TOPIC, segment_size: int = LARGEST_SEGMENT
    ) -> None:
        if not 1 <= segment_size <= LARGEST_SEGMENT:
            raise ValueError(f"segment_size should be from 1 to {LARGEST_SEGMENT} bytes")
        self._link = link
        self._topics = Topics(store_topic)
        self._segment_size = segment_size

    def files(self, page: int = 1000) -> Iterator[ListedFile]:
        """The stored files, in the order of their names.

        :param page: files that one request asks for
        """
        after: str | None = None
        while True:
            request = {"after": after, "limit": page}
            answer = decode_json(self._link.ask(self._topics.listing, encode_json(request)).payload)
            for line in answer["files"]:
                yield ListedFile.from_json(line)
            after = answer["next"]
            if after is None:
                return

    def version(self, name: str) -> StoredVersion:
        """Which file is stored under a name.

        :raises RemoteError: none is, or the name is refused
        """
        return StoredVersion.from_fields(self._read(name, 0, 0, None).other_fields)

    def get(
        self,
        name: str,
        target: str | os.PathLike[str],
        progress: Callable[[int, int], None] = lambda _done, _size: None,
    ) -> StoredVersion:
        """Bring a stored file to ``target``, which appears whole or not at all.

        When this returns the file is verified and durable.  What an interrupted call brought lies
        beside ``target``: the same call goes on with it.

        :param name: name of the stored file
        :param target: where it goes; a file that is there is replaced
        :param progress: called with the bytes that are here, and the size of the file
        :raises FileChangedError: the stored file was replaced on the way
        :raises RemoteError: there is none, or the name is refused
        :raises GaveUpError: the service did not answer for the link's ``retry_for`` seconds
        :raises OSError: ``target`` cannot be written, or :func:`check_target` refuses it
        """
        check_target(target)
        version = self.version(name)
        folder, base = os.path.split(os.path.abspath(target))
        part = os.path.join(folder, _part_name(base, version))
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with os.fdopen(fd, "r+b") as file:
            _lock(file, part)
            _remove_other_parts(folder, base, part)
            try:
                self._complete(file, name, version, progress)
            except FileChangedError:
                os.unlink(part)
                raise
            except RemoteError as error:
                if error.kind == ErrorKind.NOT_FOUND:  # removed on the way
                    os.unlink(part)
                raise
            file.flush()
            os.fsync(file.fileno())
            os.replace(part, os.path.join(folder, base))
        _flush_folder(folder)
        return version

    def _complete(
        self,
        file: BinaryIO,
        name: str,
        version: StoredVersion,
        progress: Callable[[int, int], None],
    ) -> None:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        done = file.tell()
        while done < version.size:
            progress(done, version.size)
            data = self._segment(name, done, version)
            file.write(data)
            digest.update(data)
            done += len(data)
        progress(done, version.size)
        if digest.hexdigest() != version.sha256:
            raise FileChangedError(
                name, f"what was brought of {name!r} is not the stored file; get it again"
            )

    def _segment(self, name: str, offset: int, version: StoredVersion) -> bytes:
        answer = self._read(name, offset, self._segment_size, version)
        data = bytes(answer.payload or b"")
        fields = answer.other_fields
        if StoredVersion.from_fields(fields) != version or fields.get("offset") != str(offset):
            raise FileChangedError(name, f"{name!r} was replaced on the way; get it again")
        if hashlib.sha256(data).hexdigest() != fields.get("segment_sha256") or not data:
            raise DamagedAnswerError(name, offset)
        return data

    def _read(self, name: str, offset: int, length: int, version: StoredVersion | None) -> Any:
        request: dict[str, object] = {"name": name, "offset": offset, "length": length}
        if version is not None:
            request["version"] = version.to_fields()
        try:
            return self._link.ask(self._topics.get, encode_json(request))
        except RemoteError as error:
            if error.kind == ErrorKind.CHANGED:
                raise FileChangedError(name, str(error)) from error
            raise


def check_target(target: str | os.PathLike[str]) -> None:
    """Refuse a place that no file can be put in, or where it would take the place of no file.

    :raises OSError: there is something else than a regular file or a symbolic link to one or to
        nothing, or the folder is missing
    """
    path = os.fspath(target)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = path if path.endswith(os.sep) else os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "No such folder", folder) from None
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(
            errno.EINVAL,
            "Not a regular file, and it would be replaced by one; choose another",
            path,
        )


def _part_name(base: str, version: StoredVersion) -> str:
    # The file's hash, so that only bytes of this version are gone on with.
    return f"{_parts_of(base)}{version.sha256[:32]}{_PART}"


def _parts_of(base: str) -> str:
    # The target's name, so that two targets in one folder have a part each though their bytes are
    # the same.  Hashed, because names may be as long as the file system allows already.
    return f".{hashlib.sha256(os.fsencode(base)).hexdigest()[:32]}-"


def _remove_other_parts(folder: str, base: str, part: str) -> None:
    """Remove what interrupted calls brought of versions that are stored no more."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if not (name.startswith(_parts_of(base)) and name.endswith(_PART)) or path == part:
            continue
        # Whoever holds its lock is still getting it, and sees to it.
        with suppress(OSError, FabricError), open(path, "rb") as other:
            _lock(other, path)
            os.unlink(path)


def _lock(file: BinaryIO, part: str) -> None:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise GetRunningError(str(part)) from error


def _flush_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
