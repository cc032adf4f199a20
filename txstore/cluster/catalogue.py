"""The catalogue over many hosts: the objects themselves, whose metadata says what was stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from txstore.checks import Verified, finding
from txstore.cluster.objects import Objects
from txstore.cluster.stored import StoredObjects
from txstore.deadline import Deadline
from txstore.protocol.catalogue import CatalogueEntry, Page, Reached

#: Objects that one call asks for at most, one by one.
_MANY = 100
#: Bytes that are read at once.
_PIECE = 1024 * 1024


def page(objects: Objects, after: str, limit: int, deadline: Deadline) -> Page:
    """Some entries.  Objects that no store made have none."""
    files, here = _names(objects, after, min(limit, _MANY), deadline)
    found = (entry(objects, one, deadline) for one in files)
    return [one for one in found if one is not None], here


def verify(objects: Objects, after: str, reached: Reached, timeout: float) -> Iterator[Verified]:
    """Read all files, from after a key on."""
    here: str | None = after
    while here is not None:
        names, here = _names(objects, here, _MANY, Deadline(timeout))
        for name in names:
            one = verified(objects, name, reached, timeout)
            if one.entry is not None:  # another program's, or just removed
                yield one


def verified(objects: Objects, key: str, reached: Reached, timeout: float) -> Verified:
    """Read one file."""
    while True:
        try:
            opened = StoredObjects(objects).open(key, Deadline(timeout))
        except FileNotFoundError:
            opened = None
        if opened is None or opened.sha256 is None:
            return Verified(key, None, finding("stored-unknown", name=key))
        hasher = hashlib.sha256()
        with opened.file as file:
            while part := file.read(_PIECE):
                hasher.update(part)
                reached(len(part))
        if opened.changed():
            continue  # it was replaced meanwhile
        size, sha256 = opened.size, opened.sha256
        known = CatalogueEntry(key, size, sha256, opened.stored_at, key)
        found = None
        if hasher.hexdigest() != sha256:
            found = finding("stored-damaged", name=key, size=size, sha256=sha256)
        return Verified(key, known, found)


def _names(
    objects: Objects, after: str, limit: int, deadline: Deadline
) -> tuple[list[str], str | None]:
    """Some keys, and the one to go on after."""
    names = [one.name for one in StoredObjects(objects).files(after or None, limit, deadline)]
    return names, names[-1] if len(names) == limit else None


def entry(objects: Objects, key: str, deadline: Deadline) -> CatalogueEntry | None:
    """One entry; ``None``: no such object was stored by a store."""
    there = objects.head(key, deadline)
    if there is None or there.token is None or there.sha256 is None:
        return None
    return CatalogueEntry(key, there.size, there.sha256, there.modified, key)
