"""What the name of a stored file must look like, so that it can be an object's key."""

from __future__ import annotations

import os

from txstore.cluster.addresses import Bucket
from txstore.errors import NameRefusedError
from txstore.protocol.names import DEFAULT_WORKING_DIR, NameRules

#: Bytes of a key, and of each of its parts: as a file system has it, so that a store can move.
_LONGEST, _LONGEST_PART = 1024, 255


class KeyRules(NameRules):
    """The rules for names, and those of an object store besides."""

    def __init__(self, bucket: Bucket) -> None:
        storage = f"/s3:/{bucket.name}/{bucket.prefix}".rstrip("/")
        # There is no such folder, but a store in two folders could not take a file in it over.
        super().__init__(storage, f"{storage}/{DEFAULT_WORKING_DIR}")
        self._prefix = bucket.prefix

    def normalise(self, name: object, file_id: str | None) -> str:
        """The name without ``.``, ``..`` and doubled slashes.

        :raises NameRefusedError: it is not text, leads where nothing may be stored, or is too long
        """
        path = super().normalise(name, file_id)
        try:
            key = (self._prefix + path).encode()
        except UnicodeEncodeError:
            raise NameRefusedError(
                name, "it is no text that UTF-8 can encode", file_id=file_id
            ) from None
        longest = max(len(one.encode()) for one in path.split(os.sep))
        if len(key) > _LONGEST or longest > _LONGEST_PART:
            raise NameRefusedError(name, "it is too long", file_id=file_id)
        return path


def folders_of(path: str) -> list[str]:
    """The folders that a name lies in, the outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]
