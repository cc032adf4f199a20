"""What the name of a file must look like.  Text alone: nothing here looks at a disk."""

from __future__ import annotations

import os

from txstore.errors import NameRefusedError

#: The store's own folder inside the storage dir.
HIDDEN = ".txstore"
#: Working dir, in the storage dir, where none is given.
DEFAULT_WORKING_DIR = ".workdir"
#: Folders in a name: each is a descriptor while its file is published, and others need some too.
MOST_PARENTS = 255
_PATH_MAX = 4096  # no program could open a longer one by its path


class NameRules:
    """What a name must look like.

    :param storage_dir: absolute path
    :param working_dir: absolute path
    """

    def __init__(self, storage_dir: str, working_dir: str) -> None:
        self._storage_dir = storage_dir
        self._working_dir = working_dir

    def normalise(self, name: object, file_id: str | None) -> str:
        """The name relative to the storage dir, without ``.``, ``..`` and doubled slashes.

        :raises NameRefusedError: it is not text, or leads where nothing may be stored
        """
        if not isinstance(name, str):
            raise NameRefusedError(name, "it is not text", file_id=file_id)
        if "\0" in name:
            raise NameRefusedError(name, "it holds a NUL character", file_id=file_id)
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            raise NameRefusedError(
                name, "it cannot be encoded for the file system", file_id=file_id
            ) from None
        full = os.path.normpath(os.path.join(self._storage_dir, name))
        path = os.path.relpath(full, self._storage_dir)
        if path == os.curdir:
            raise NameRefusedError(name, "it is the storage itself", file_id=file_id)
        if path.split(os.sep, 1)[0] == os.pardir:
            raise NameRefusedError(name, "it lies outside the storage", file_id=file_id)
        # Again from its parts: `normpath` keeps two slashes in front, which name the same folder.
        full = os.path.join(self._storage_dir, path)
        if len(os.fsencode(full)) >= _PATH_MAX:
            raise NameRefusedError(name, "its path is too long", file_id=file_id)
        if path.count(os.sep) > MOST_PARENTS:
            raise NameRefusedError(
                name, f"it lies in more than {MOST_PARENTS} folders", file_id=file_id
            )
        if is_within(full, self._working_dir) or path.split(os.sep, 1)[0] == HIDDEN:
            raise NameRefusedError(name, "it lies in the store's own folders", file_id=file_id)
        return path


def is_within(path: str, folder: str) -> bool:
    """Whether an absolute, normalised path is ``folder`` or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
