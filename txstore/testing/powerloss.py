"""What a power loss may leave of a folder, given everything that was done to it.

A ``Platter`` holds two views of every file and folder.  The kernel's is what programs see, and what
a process crash leaves.  The device's is what the last flushes made sure of.  Between them lie the
changes that no flush has covered yet.  A power loss keeps any of them, in any combination:

* a write whole, not at all, some of its 512-byte blocks, or only the growth of the file, which
  then reads as zeros;
* a name given or taken away, each by itself.  So a rename across folders can leave both names.  It
  leaves neither only if the folder of the old one was flushed and that of the new one was not: by
  itself a rename takes the old name away together with giving the new one;
* a cut, or not.

After a flush that failed the kernel takes the pages for clean.  What was in flight may stay
missing, however many flushes succeed later, until it is written again.

``Platter.left`` makes one such state, ``losses.losses`` proposes a set of them, ``Tree.build``
writes one into a real folder.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from txstore.testing import operations as ops
from txstore.testing.nodes import (
    Change,
    File,
    Folder,
    Link,
    NameChange,
    Node,
    resize,
    write_into,
)


@dataclass(frozen=True)
class Loss:
    """What one power loss keeps.

    :ivar label: for people and for replaying
    :ivar keeps_name: whether a name's change is kept
    :ivar keeps_data: what of a file's change is kept: ``"kept"``, ``"lost"``, ``"zeros"`` (only
        the growth of the file) or ``"torn"`` (some blocks)
    """

    label: str
    keeps_name: Callable[[NameChange], bool]
    keeps_data: Callable[[File, int], str]
    seed: str = ""

    def keeps_mode(self, file: File) -> bool:
        """Whether a mode that was set and not flushed is kept."""
        return random.Random(f"{self.seed}/mode/{file.key}").random() < 0.5


@dataclass
class Tree:
    """A state of a folder: what is on the disk when somebody looks.

    :ivar classes: in what it differs from what a process crash would have left
    """

    nodes: dict[int, tuple[Node, bytes]]
    names: dict[int, dict[str, int]]
    root: int
    modes: dict[int, int]
    classes: frozenset[str] = frozenset()
    paths: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.paths = dict(self._walk(self.root, ""))

    def _walk(self, folder: int, prefix: str) -> Iterator[tuple[str, int]]:
        for name, key in sorted(self.names[folder].items()):
            yield prefix + name, key
            if key in self.names:
                yield from self._walk(key, f"{prefix}{name}/")

    def digest(self) -> bytes:
        """The same for states that nobody could tell apart."""
        hasher = hashlib.sha256()
        for path, key in self.paths.items():
            node, data = self.nodes[key]
            content = _wal_identity(data) if node.role == "wal" else data
            facts = (os.fsencode(path), node.number, self.modes.get(key, 0), len(data))
            hasher.update(b"%s\0%d\0%o\0%d\0" % facts)
            hasher.update(hashlib.sha256(content).digest())
        return hasher.digest()

    def file(self, path: str) -> bytes | None:
        """Content of the file at a path relative to the root."""
        key = self.paths.get(path)
        return self.nodes[key][1] if key is not None and key not in self.names else None

    def mode(self, path: str) -> int:
        """Permission bits of the file at a path relative to the root."""
        return self.modes[self.paths[path]]

    def build(self, root: str) -> dict[tuple[int, int], int]:
        """Write the state into an existing, empty folder.

        :return: (device, inode) of what was made -> its key
        """
        made: dict[int, str] = {}
        keys: dict[tuple[int, int], int] = {}
        for path, key in self.paths.items():
            full = os.path.join(root, path)
            node, data = self.nodes[key]
            if key in made:
                os.link(made[key], full)
                continue
            made[key] = full
            if isinstance(node, Folder):
                os.mkdir(full)
                os.chmod(full, self.modes[key])
            elif isinstance(node, Link):
                os.symlink(node.target, full)
            else:
                fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    if data:
                        os.write(fd, data)
                    os.fchmod(fd, self.modes[key])
                finally:
                    os.close(fd)
            found = os.lstat(full)
            keys[found.st_dev, found.st_ino] = key
        found = os.stat(root)
        keys[found.st_dev, found.st_ino] = self.root
        return keys


class Platter:
    """Everything under one folder, as the kernel and as the device has it."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {ops.ROOT: Folder(ops.ROOT, 2, 0o755)}
        self.count = 0

    def folder(self, key: int) -> Folder:
        node = self.nodes[key]
        assert isinstance(node, Folder)
        return node

    def regular(self, key: int) -> File:
        node = self.nodes[key]
        assert isinstance(node, File)
        return node

    def copy(self) -> Platter:
        """An independent platter: what follows a process crash, with all that is unflushed."""
        other = Platter()
        other.count = self.count
        twins: dict[int, NameChange] = {}

        def twin(change: NameChange) -> NameChange:
            if id(change) not in twins:
                needs = twin(change.needs) if change.needs is not None else None
                copied = NameChange(change.at, change.name, change.node, needs)
                copied.sure, copied.moved = change.sure, change.moved
                twins[id(change)] = copied
            return twins[id(change)]

        for key, node in self.nodes.items():
            if isinstance(node, File):
                other.nodes[key] = node.copy()
            elif isinstance(node, Folder):
                folder = Folder(key, node.number, node.mode)
                folder.names, folder.base = dict(node.names), dict(node.base)
                folder.pending = [twin(change) for change in node.pending]
                other.nodes[key] = folder
            else:
                other.nodes[key] = node
        return other

    @classmethod
    def of(cls, tree: Tree) -> Platter:
        """A platter on which nothing but ``tree`` is, all of it durable."""
        platter = cls()
        platter.nodes.clear()
        for key, (node, data) in tree.nodes.items():
            if isinstance(node, File):
                file = File(key, node.number, tree.modes[key], node.role)
                file.data, file.base, file.version = bytearray(data), data, node.version
                platter.nodes[key] = file
            elif isinstance(node, Folder):
                folder = Folder(key, node.number, node.mode)
                folder.names, folder.base = dict(tree.names[key]), dict(tree.names[key])
                platter.nodes[key] = folder
            else:
                platter.nodes[key] = node
        return platter

    # --- what is done to it ------------------------------------------------------------------

    def apply(self, op: ops.Operation) -> None:
        """Do one operation, in the kernel's view; a flush also in the device's."""
        if isinstance(op, ops.Note):
            return
        self.count += 1
        if isinstance(op, ops.Write):
            file = self.regular(op.node)
            change = Change(self.count, op.offset, op.data)
            write_into(file.data, change, None)
            file.pending.append(change)
            file.version = self.count
        elif isinstance(op, ops.Cut):
            file = self.regular(op.node)
            resize(file.data, op.size)
            file.pending.append(Change(self.count, op.size, None))
            file.version = self.count
        elif isinstance(op, ops.Flush):
            file = self.regular(op.node)
            if op.failed:
                file.fail_flush()
            else:
                file.flush()
                file.base_mode = file.mode if op.whole else file.base_mode
        elif isinstance(op, ops.FlushFolder):
            if not op.failed:
                self.folder(op.folder).flush()
        elif isinstance(op, ops.Mode):
            node = self.nodes[op.node]
            assert not isinstance(node, Link)
            node.mode = op.mode
        else:
            self._rename_or_so(op)

    def _rename_or_so(self, op: ops.Operation) -> None:
        if isinstance(op, ops.Create):
            file = File(op.node, op.number, op.mode, op.role)
            file.version = self.count
            self.nodes[op.node] = file
            self._name(op.folder, op.name, op.node)
        elif isinstance(op, ops.MakeFolder):
            self.nodes[op.node] = Folder(op.node, op.number, op.mode)
            self._name(op.folder, op.name, op.node)
        elif isinstance(op, ops.Remove):
            self._name(op.folder, op.name, None)
        elif isinstance(op, ops.Hardlink):
            self._name(op.folder, op.target, self.folder(op.folder).names[op.source])
        elif isinstance(op, ops.Rename):
            node = self.folder(op.source_folder).names[op.source]
            given = self._name(op.target_folder, op.target, node)
            given.moved = True
            self._name(op.source_folder, op.source, None, given)

    def _name(
        self, folder: int, name: str, node: int | None, needs: NameChange | None = None
    ) -> NameChange:
        into = self.folder(folder)
        if node is None:
            into.names.pop(name, None)
        else:
            into.names[name] = node
        change = NameChange(self.count, name, node, needs)
        into.pending.append(change)
        return change

    # --- what is left of it ------------------------------------------------------------------

    def pending(self) -> Iterator[File]:
        """Files with changes that no flush has covered."""
        for node in self.nodes.values():
            if isinstance(node, File) and node.pending:
                yield node

    def numbers_in_use(self) -> set[int]:
        """Inode numbers that a name leads to, or could lead to again after a power loss."""
        keys = {ops.ROOT}
        for node in self.nodes.values():
            if isinstance(node, Folder):
                keys.update(node.names.values(), node.base.values())
                keys.update(one.node for one in node.pending if one.node is not None)
        return {self.nodes[key].number for key in keys}

    def kernel(self) -> Tree:
        """What a process crash leaves."""
        nodes: dict[int, tuple[Node, bytes]] = {}
        names: dict[int, dict[str, int]] = {}
        modes: dict[int, int] = {}
        todo = [ops.ROOT]
        while todo:
            key = todo.pop()
            node = self.nodes[key]
            if not isinstance(node, Link):
                modes[key] = node.mode
            nodes[key] = (node, bytes(node.data) if isinstance(node, File) else b"")
            if isinstance(node, Folder):
                names[key] = dict(node.names)
                todo += node.names.values()
        return Tree(nodes, names, ops.ROOT, modes)

    def left(self, loss: Loss) -> Tree:
        """What a power loss leaves."""
        tree, classes = Tree({}, {ops.ROOT: {}}, ops.ROOT, {}), set[str]()
        todo = [ops.ROOT]
        lost_at, kept_in_wal, lost_in_wal = None, 0, 0
        while todo:
            key = todo.pop()
            if key in tree.nodes:
                continue
            node = self.nodes[key]
            if isinstance(node, Folder):
                names, lost = _names_left(node, loss, classes)
                tree.nodes[key], tree.names[key] = (node, b""), names
                tree.modes[key] = node.mode
                todo += names.values()
                if lost:
                    lost_at = min(lost, lost_at or lost)
            elif isinstance(node, File):
                data, kept, lost = _data_left(node, loss, classes)
                tree.nodes[key] = (node, data)
                tree.modes[key] = node.mode if loss.keeps_mode(node) else node.base_mode
                if node.role == "wal":
                    kept_in_wal, lost_in_wal = max(kept_in_wal, kept), max(lost_in_wal, lost)
                elif lost:
                    lost_at = min(lost, lost_at or lost)
            else:
                tree.nodes[key] = (node, b"")
        if lost_in_wal and lost_at is None:
            classes.add("journal behind")
        if lost_at is not None and kept_in_wal > lost_at:
            classes.add("journal ahead")
        return Tree(tree.nodes, tree.names, ops.ROOT, tree.modes, frozenset(classes))


def _names_left(folder: Folder, loss: Loss, classes: set[str]) -> tuple[dict[str, int], int]:
    names, first_lost = dict(folder.base), 0
    kept: dict[int, bool] = {}
    for change in folder.pending:
        other = change.needs
        keep = change.sure or loss.keeps_name(change)
        if keep and other is not None and not other.sure:
            keep = loss.keeps_name(other)
        kept[id(change)] = keep
        if keep:
            if change.node is None:
                names.pop(change.name, None)
            else:
                names[change.name] = change.node
        else:
            first_lost = first_lost or change.at
            if change.node is not None and folder.names.get(change.name) == change.node:
                classes.add("name lost")
            elif other is not None and (other.sure or loss.keeps_name(other)):
                classes.add("both names")
            elif other is None and change.node is None:
                classes.add("name back")
    return names, first_lost


def _data_left(file: File, loss: Loss, classes: set[str]) -> tuple[bytes, int, int]:
    if not file.pending:
        return file.base, 0, 0
    image = bytearray(file.base)
    last_kept = first_lost = 0
    torn = "journal torn" if file.role == "wal" else "torn"
    for index, change in enumerate(file.pending):
        fate = loss.keeps_data(file, index)
        before = len(image)
        if fate == "kept":
            write_into(image, change, None)
            last_kept = change.at
            continue
        first_lost = first_lost or change.at
        if fate == "lost":
            continue
        if fate == "zeros":
            if change.data is not None and change.offset + len(change.data) > before:
                resize(image, change.offset + len(change.data))
                classes.add("zero-filled")
            continue
        picker = random.Random(f"{loss.seed}/{file.key}/{index}")
        chosen = {block for block in change.blocks() if picker.random() < 0.5}
        if chosen and len(chosen) < len(change.blocks()):
            write_into(image, change, chosen)
            classes.add(torn)
    return bytes(image), last_kept, first_lost


def _wal_identity(data: bytes) -> bytes:
    """A WAL without what SQLite picks at random: the salts, and checksums that rest on them."""
    out = bytearray(data.rstrip(b"\0"))
    if len(out) >= 32:
        page = int.from_bytes(out[8:12], "big")
        out[16:32] = bytes(16)
        for frame in range(32, len(out), page + 24):
            end = min(frame + 24, len(out))
            out[frame + 8 : end] = bytes(max(0, end - frame - 8))
    return bytes(out)
