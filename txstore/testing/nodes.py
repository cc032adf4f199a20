"""Files and folders on a ``Platter``: the kernel's view, the device's, and what lies between."""

from __future__ import annotations

from typing import Union

BLOCK = 512


class Change:
    """A write (or, without data, a cut) that no flush has covered.

    :ivar at: how many operations came before it
    :ivar ghost: a flush of it failed, so no later flush makes it durable
    """

    __slots__ = ("at", "covered", "data", "ghost", "offset")

    def __init__(self, at: int, offset: int, data: bytes | None) -> None:
        self.at, self.offset, self.data = at, offset, data
        self.ghost = False
        self.covered: set[int] = set()  # blocks that a later, durable write replaced

    def blocks(self) -> range:
        """Numbers of the blocks that it writes to."""
        if not self.data:
            return range(0)
        return range(self.offset // BLOCK, (self.offset + len(self.data) - 1) // BLOCK + 1)

    def copy(self) -> Change:
        other = Change(self.at, self.offset, self.data)
        other.ghost, other.covered = self.ghost, set(self.covered)
        return other


class File:
    """A regular file.

    :ivar key: identity within the platter, never used again
    :ivar number: inode number
    :ivar role: ``"wal"``, ``"db"`` (the journal's files) or ``"file"``
    """

    def __init__(self, key: int, number: int, mode: int, role: str) -> None:
        self.key, self.number, self.mode, self.role = key, number, mode, role
        self.base_mode = mode
        self.data = bytearray()
        self.base = b""
        self.pending: list[Change] = []
        self.version = 0  # stands for the time of the last change

    def copy(self) -> File:
        other = File(self.key, self.number, self.mode, self.role)
        other.data, other.base = bytearray(self.data), self.base
        other.pending = [change.copy() for change in self.pending]
        other.version, other.base_mode = self.version, self.base_mode
        return other

    def flush(self) -> None:
        """The kernel's view is now the device's, except for what an earlier failure left."""
        ghosts = [change for change in self.pending if change.ghost]
        if not ghosts:
            self.base, self.pending = bytes(self.data), []
            return
        image = bytearray(self.base)
        for change in self.pending:
            if change.ghost:
                continue
            write_into(image, change, None)
            for ghost in ghosts:
                if ghost.at < change.at:
                    ghost.covered.update(change.blocks())
        resize(image, len(self.data))
        self.base = bytes(image)
        self.pending = [one for one in ghosts if not set(one.blocks()) <= one.covered]

    def fail_flush(self) -> None:
        for change in self.pending:
            change.ghost = True


class NameChange:
    """A name given (or, without a node, taken away) that no flush of the folder has covered."""

    __slots__ = ("at", "moved", "name", "needs", "node", "sure")

    def __init__(self, at: int, name: str, node: int | None, needs: NameChange | None) -> None:
        self.at, self.name, self.node = at, name, node
        self.needs = needs  # the other half of a rename, without which it cannot be
        self.sure = False
        self.moved = needs is not None  # one half of a rename


class Folder:
    """A folder: names, as the kernel and as the device has them."""

    role = "folder"

    def __init__(self, key: int, number: int, mode: int) -> None:
        self.key, self.number, self.mode = key, number, mode
        self.names: dict[str, int] = {}
        self.base: dict[str, int] = {}
        self.pending: list[NameChange] = []

    def flush(self) -> None:
        for change in self.pending:
            change.sure = True  # for the other half of a rename
        self.base, self.pending = dict(self.names), []


class Link:
    """A symbolic link; it was there before, so it is durable."""

    role = "link"

    def __init__(self, key: int, number: int, target: str) -> None:
        self.key, self.number, self.target = key, number, target


Node = Union[File, Folder, Link]  # noqa: UP007 - an alias that is evaluated on Python 3.10


def write_into(image: bytearray, change: Change, only: set[int] | None) -> None:
    """Put a change, or only some blocks of it, into an image of its file."""
    if change.data is None:
        resize(image, change.offset)
        return
    if only is None and not change.covered:
        end = change.offset + len(change.data)
        if len(image) < change.offset:
            resize(image, change.offset)
        image[change.offset : end] = change.data
        return
    for block in change.blocks():
        if (only is None or block in only) and block not in change.covered:
            start = max(change.offset, block * BLOCK)
            end = min(change.offset + len(change.data), (block + 1) * BLOCK)
            if len(image) < end:
                resize(image, end)
            image[start:end] = change.data[start - change.offset : end - change.offset]


def resize(image: bytearray, size: int) -> None:
    if size < len(image):
        del image[size:]
    else:
        image.extend(bytes(size - len(image)))
