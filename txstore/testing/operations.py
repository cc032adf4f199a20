"""What was done to a disk, one small value for each thing done.

Files and folders are named by keys: numbers that are never used again, unlike inode numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Union

#: Key of the folder under which everything happens.
ROOT = 1


class Create(NamedTuple):
    folder: int
    name: str
    node: int
    number: int
    mode: int
    role: str


class MakeFolder(NamedTuple):
    folder: int
    name: str
    node: int
    number: int
    mode: int


class Write(NamedTuple):
    node: int
    offset: int
    data: bytes


class Cut(NamedTuple):
    node: int
    size: int


class Mode(NamedTuple):
    node: int
    mode: int


class Flush(NamedTuple):
    """``whole``: metadata, too, of which the mode is the one that matters here."""

    node: int
    failed: bool = False
    whole: bool = False


class FlushFolder(NamedTuple):
    folder: int
    failed: bool = False


class Remove(NamedTuple):
    folder: int
    name: str


class Rename(NamedTuple):
    source_folder: int
    source: str
    target_folder: int
    target: str


class Hardlink(NamedTuple):
    folder: int
    source: str
    target: str


class Note(NamedTuple):
    """Nothing done to the disk: where the one who records has come to."""

    what: Any


Operation = Union[  # noqa: UP007 - an alias that is evaluated on Python 3.10
    Create, MakeFolder, Write, Cut, Mode, Flush, FlushFolder, Remove, Rename, Hardlink, Note
]
