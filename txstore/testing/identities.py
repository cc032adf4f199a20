"""Which file is which below a simulated disk's folder: keys, inode numbers, times of change."""

from __future__ import annotations

import os
import stat as modes
from typing import Any

from txstore.testing import operations as ops
from txstore.testing.nodes import File, Folder, Link
from txstore.testing.powerloss import Platter
from txstore.testing.sqlite import copy_of

_FIRST_NUMBER = 11
_EPOCH = 1_700_000_000_000_000_000
_NEVER = 1 << 62
_MILLISECOND = 1_000_000


class Identities:
    """The part of a simulated disk that knows its files.

    A file has a key, which is never used again, for as long as it is recorded; what a program sees
    is a small inode number that is used again as soon as the file is gone.

    :param root: absolute path of the folder
    :param platter: what is recorded of it
    :param keys: device and inode of a real file -> its key; ``None``: what is there is taken down
    :param record: whether changes are recorded
    """

    def __init__(
        self, root: str, platter: Platter, keys: dict[tuple[int, int], int] | None, record: bool
    ) -> None:
        self.root, self.platter, self._record = root, platter, record
        self._open: dict[int, int] = {}  # descriptor -> key
        self._keys = dict(keys or {})
        self._changed: dict[int, int] = {}  # key -> the real time of its last change
        self._next = max(self.platter.nodes) + 1
        if keys is None:
            self._adopt()
        for key in self._keys.values():
            self._next = max(self._next, key + 1)

    def _adopt(self) -> None:
        """Take down what is in the folder already."""
        found = os.stat(self.root)
        self._keys[found.st_dev, found.st_ino] = ops.ROOT
        for top, folders, files in os.walk(self.root):
            into = self.platter.folder(self._key_at(top))
            for name in sorted(folders + files):
                found = os.lstat(os.path.join(top, name))
                identity = found.st_dev, found.st_ino
                key = self._keys.get(identity)
                if key is None:
                    key = self._keys[identity] = self._new_key()
                    self.platter.nodes[key] = self._adopted(key, os.path.join(top, name), found)
                into.names[name] = into.base[name] = key

    def _adopted(self, key: int, path: str, found: os.stat_result) -> File | Folder | Link:
        number, mode = self._free_number(), modes.S_IMODE(found.st_mode)
        if modes.S_ISDIR(found.st_mode):
            return Folder(key, number, mode)
        if modes.S_ISLNK(found.st_mode):
            return Link(key, number, os.readlink(path))
        file = File(key, number, mode, role_of(path))
        file.base = copy_of(path) or b""
        file.data = bytearray(file.base)
        self._changed[key] = found.st_mtime_ns
        return file

    def _new_key(self) -> int:
        self._next += 1
        return self._next - 1

    def _free_number(self) -> int:
        used = self.platter.numbers_in_use()
        used.update(self.platter.nodes[key].number for key in self._open.values())
        number = _FIRST_NUMBER
        while number in used:
            number += 1
        return number

    def _key_of(self, fd: int) -> int | None:
        found = os.fstat(fd)
        return self._keys.get((found.st_dev, found.st_ino))

    def _key_at(self, path: str) -> int:
        found = os.lstat(path)
        return self._keys[found.st_dev, found.st_ino]

    def _folder_key(self, dir_fd: int | None, name: str) -> tuple[int | None, str]:
        """The folder that a name lies in, and the name's last part."""
        head, tail = os.path.split(name)
        found = os.stat(head or ".", dir_fd=dir_fd)
        return self._keys.get((found.st_dev, found.st_ino)), tail

    def _seen(self, found: os.stat_result) -> os.stat_result:
        """What a program sees of a file: its simulated inode number and time of change."""
        key = self._keys.get((found.st_dev, found.st_ino))
        node = self.platter.nodes.get(key) if key is not None else None
        if node is None:
            return found
        parts: Any = found.__reduce__()
        fields, more = parts[1]
        # Real times differ from run to run, and with them what the store need not look at again.
        more = {**more, "st_ctime_ns": _NEVER}
        known = self._changed.setdefault(node.key, found.st_mtime_ns)
        if isinstance(node, File) and known == found.st_mtime_ns:
            more = {**more, "st_mtime_ns": _EPOCH + node.version * _MILLISECOND}
        return os.stat_result((fields[0], node.number, *fields[2:]), more)

    def _wrote(self, fd: int, key: int) -> None:
        self._changed[key] = os.fstat(fd).st_mtime_ns
        if not self._record:
            self.platter.count += 1
            self.platter.regular(key).version = self.platter.count


def role_of(name: str) -> str:
    """What a file is to the journal, as its name says."""
    if name.endswith("-wal"):
        return "wal"
    return "db" if os.path.basename(name).startswith(("journal.db", "new-")) else "file"
