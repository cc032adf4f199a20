"""The object store: its few requests, bounded and made again, and what their errors mean."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import boto3
import botocore.exceptions
import botocore.session
from botocore.config import Config

from txstore.cluster.addresses import Bucket
from txstore.cluster.retry import TransientError, retrying
from txstore.cluster.servers import Servers
from txstore.deadline import Deadline
from txstore.errors import ObjectStoreError
from txstore.protocol.names import HIDDEN

#: Keys that one request deletes at most.
_MANY = 1000
#: Bytes of a large object that are read at once.
_PIECE = 8 * 1024 * 1024
#: What the metadata of an object of ours says: whose it is, and its hash.
_TOKEN, _SHA256 = "txstore-token", "txstore-sha256"

_PASSING = frozenset(
    [
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ConditionalRequestConflict",
    ]
)
#: The connection could not be made, or was lost.
_CONNECTION = (
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
    ConnectionError,
)
_MISSING = ("404", "NoSuchKey", "NotFound")
_CHANGED = ("412", "PreconditionFailed")
_NUMBERS = {
    "AccessDenied": errno.EACCES,
    "InvalidAccessKeyId": errno.EACCES,
    "SignatureDoesNotMatch": errno.EACCES,
    "NoSuchBucket": errno.ENOENT,
    "NoSuchKey": errno.ENOENT,
    "QuotaExceeded": errno.EDQUOT,
    "EntityTooLarge": errno.EFBIG,
}


class Found(NamedTuple):
    """An object that is there.

    :ivar token: whose it is, as its metadata says; ``None``: not one of ours
    """

    size: int
    etag: str
    modified: datetime
    token: str | None
    sha256: str | None


class Listed(NamedTuple):
    """Some objects, and where to go on; ``None``: there are no more."""

    entries: list[Entry]
    after: str | None

    @property
    def keys(self) -> list[str]:
        return [one.key for one in self.entries]


class Entry(NamedTuple):
    """An object as a list of them tells of it."""

    key: str
    size: int
    modified: datetime


class Upload(NamedTuple):
    """A multipart upload that is under way."""

    key: str
    upload: str


@cache
def _descriptions() -> Any:
    """What the library knows of the protocol: a tenth of a second to read, once in a process."""
    return botocore.session.get_session().get_component("data_loader")


class Objects:
    """The requests of one process.  Thread-safe.

    :ivar where: the URL, for people
    """

    def __init__(self, bucket: Bucket, servers: Servers, lock_timeout: float) -> None:
        self.where, self._bucket, self._servers = bucket.url, bucket, servers
        self._prefix = bucket.prefix
        # One that hangs must not use up all the time that its call has.
        patience = min(max(lock_timeout / 3, 0.2), 20.0)
        try:
            core = botocore.session.get_session()
            core.register_component("data_loader", _descriptions())
            session = boto3.session.Session(botocore_session=core, profile_name=bucket.profile)
            self._client: Any = session.client(
                "s3",
                **bucket.client,
                config=Config(
                    retries={"total_max_attempts": 1, "mode": "standard"},  # ours are bounded
                    connect_timeout=patience,
                    read_timeout=patience,
                    max_pool_connections=64,
                ),
            )
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise self._error(errno.EINVAL, error) from error

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    # --- one request -------------------------------------------------------------------------

    def _call(self, call: str, key: str | None, deadline: Deadline, **arguments: Any) -> Any:
        """Make a request, again and again as long as what fails is passing."""
        return retrying(lambda: self._once(call, key, **arguments), deadline, self._servers)

    def _once(self, call: str, key: str | None, **arguments: Any) -> Any:
        if key is not None:
            arguments["Key"] = self._prefix + key
        arguments["Bucket"] = self._bucket.name
        try:
            return self._servers.request(self._client, call, arguments)
        except botocore.exceptions.ClientError as error:
            code = _code(error)
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            told = self._error(_NUMBERS.get(code, errno.EIO), error)
            if code in _PASSING or status in (429, 500, 502, 503, 504):
                raise TransientError(told) from error
            raise told from error
        except botocore.exceptions.NoCredentialsError as error:
            raise self._error(errno.EACCES, error) from error
        except _CONNECTION as error:
            number = errno.ETIMEDOUT if "Timeout" in type(error).__name__ else errno.ECONNRESET
            raise TransientError(self._error(number, error)) from error
        except botocore.exceptions.BotoCoreError as error:
            raise self._error(errno.EIO, error) from error

    def _error(self, number: int, error: Exception) -> ObjectStoreError:
        told = ObjectStoreError(number, f"The object store failed: {error}", self.where)
        told.__cause__ = error
        return told

    # --- objects -----------------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: bytes,
        deadline: Deadline,
        *,
        token: str | None = None,
        sha256: bytes = b"",
    ) -> str:
        """Store an object whole, whatever is there; its ETag."""
        metadata = {_TOKEN: token, _SHA256: sha256.hex()} if token else {}
        answer = self._call("put_object", key, deadline, Body=data, Metadata=metadata)
        return str(answer["ETag"])

    def put_new(
        self, key: str, data: bytes, deadline: Deadline, *, token: str, sha256: bytes = b""
    ) -> bool:
        """Store an object whole if none is there; ``False``: one is."""
        metadata = {_TOKEN: token, _SHA256: sha256.hex()}
        try:
            self._call("put_object", key, deadline, Body=data, Metadata=metadata, IfNoneMatch="*")
        except ObjectStoreError as error:
            if _code(error.__cause__) not in _CHANGED:
                raise
            # Perhaps by an attempt of this one whose answer was lost.
            found = self.head(key, deadline)
            return found is not None and found.token == token
        return True

    def head(self, key: str, deadline: Deadline) -> Found | None:
        """What is there; ``None``: nothing."""
        try:
            answer = self._call("head_object", key, deadline)
        except ObjectStoreError as error:
            if _code(error.__cause__) in _MISSING:
                return None
            raise
        metadata = answer.get("Metadata", {})
        return Found(
            answer["ContentLength"],
            answer["ETag"],
            answer["LastModified"],
            metadata.get(_TOKEN),
            metadata.get(_SHA256) or None,
        )

    def get(self, key: str, deadline: Deadline) -> bytes:
        """All bytes of an object.

        :raises ObjectStoreError: with ENOENT: it is not there
        """

        return self._read(key, deadline)[0]

    def pieces(self, key: str, size: int, deadline: Deadline) -> Iterator[bytes]:
        """The bytes of an object, some at a time; of the one that was there first, or an error."""
        etag = None
        for start in range(0, size, _PIECE):
            ranged = {"Range": f"bytes={start}-{start + _PIECE - 1}"}
            data, etag = self._read(key, deadline.later(deadline.timeout), etag, **ranged)
            yield data

    def range(self, key: str, start: int, size: int, etag: str, deadline: Deadline) -> bytes | None:
        """Some bytes of an object; ``None``: it is another one now, or none."""
        try:
            ranged = {"Range": f"bytes={start}-{start + size - 1}"}
            return self._read(key, deadline, etag, **ranged)[0]
        except ObjectStoreError as error:
            if _code(error.__cause__) in (*_CHANGED, *_MISSING):
                return None
            raise

    def _read(
        self, key: str, deadline: Deadline, etag: str | None = None, **arguments: Any
    ) -> tuple[bytes, str]:
        if etag is not None:
            arguments["IfMatch"] = etag

        def work() -> tuple[bytes, str]:
            try:
                answer = self._once("get_object", key, **arguments)
                return answer["Body"].read(), answer["ETag"]
            except botocore.exceptions.BotoCoreError as error:
                raise TransientError(self._error(errno.ECONNRESET, error)) from error

        return retrying(work, deadline, self._servers)

    def listed(self, prefix: str, after: str | None, most: int, deadline: Deadline) -> Listed:
        """Some objects whose keys begin with a prefix, in order, from after one on."""
        start = {"StartAfter": self._prefix + after} if after else {}
        answer = self._call(
            "list_objects_v2",
            None,
            deadline,
            Prefix=self._prefix + prefix,
            MaxKeys=most,
            **start,
        )
        entries = [
            Entry(one["Key"][len(self._prefix) :], one["Size"], one["LastModified"])
            for one in answer.get("Contents", [])
        ]
        return Listed(entries, entries[-1].key if answer.get("IsTruncated") and entries else None)

    def delete(self, keys: Iterable[str], deadline: Deadline) -> None:
        """Remove objects; one that is not there is removed."""
        left = [{"Key": self._prefix + key} for key in keys]
        while left:
            some, left = left[:_MANY], left[_MANY:]
            answer = self._call(
                "delete_objects", None, deadline, Delete={"Objects": some, "Quiet": True}
            )
            for failed in answer.get("Errors", []):
                raise ObjectStoreError(
                    errno.EIO,
                    f"The object store kept {failed.get('Key')!r}: {failed.get('Code')}",
                    self.where,
                )

    # --- an object of parts ------------------------------------------------------------------

    def begin(self, key: str, token: str, sha256: bytes, deadline: Deadline) -> str:
        """Begin a multipart upload; its id.  Nobody sees it before it is completed."""
        answer = self._call(
            "create_multipart_upload",
            key,
            deadline,
            Metadata={_TOKEN: token, _SHA256: sha256.hex()},
        )
        return str(answer["UploadId"])

    def add(self, key: str, upload: str, number: int, data: bytes, deadline: Deadline) -> str:
        """Send a part of an upload; its ETag."""
        answer = self._call(
            "upload_part", key, deadline, UploadId=upload, PartNumber=number, Body=data
        )
        return str(answer["ETag"])

    def copy(self, key: str, upload: str, number: int, source: str, deadline: Deadline) -> str:
        """Have the object store copy a staged object as a part of an upload; its ETag."""
        answer = self._call(
            "upload_part_copy",
            key,
            deadline,
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": self._bucket.name, "Key": self._prefix + source},
        )
        return str(answer["CopyPartResult"]["ETag"])

    def complete(
        self, key: str, upload: str, etags: list[str], token: str, deadline: Deadline
    ) -> bool:
        """Publish what was uploaded, at once and whole; ``False``: the upload was aborted."""
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
        try:
            self._call(
                "complete_multipart_upload",
                key,
                deadline,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
            )
        except ObjectStoreError as error:
            if _code(error.__cause__) not in ("NoSuchUpload", "404"):
                raise
            # Perhaps by an attempt whose answer was lost.
            found = self.head(key, deadline)
            return found is not None and found.token == token
        return True

    def abort(self, key: str, upload: str, deadline: Deadline) -> None:
        """Have an upload never be completed; one that was is left as it is."""
        try:
            self._call("abort_multipart_upload", key, deadline, UploadId=upload)
        except ObjectStoreError as error:
            if _code(error.__cause__) not in ("NoSuchUpload", "404"):
                raise

    def uploads(self, deadline: Deadline) -> list[tuple[Upload, Any]]:
        """Multipart uploads that are under way, and when each began."""
        answer = self._call("list_multipart_uploads", None, deadline, Prefix=self._prefix)
        return [
            (Upload(one["Key"][len(self._prefix) :], one["UploadId"]), one["Initiated"])
            for one in answer.get("Uploads", [])
        ]


def _code(error: BaseException | None) -> str:
    if not isinstance(error, botocore.exceptions.ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


#: Where staged objects are, and the object that says whose the storage is.
STAGING = f"{HIDDEN}/staging/"
MARKER = f"{HIDDEN}/store"
