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
    limit = min(limit, _MANY)
    files = StoredObjects(objects).files(after or None, limit, deadline)
    found = (entry(objects, one.name, deadline) for one in files)
    return [one for one in found if one is not None], files[-1].name if len(
        files
    ) == limit else None


def verify(objects: Objects, after: str, reached: Reached, timeout: float) -> Iterator[Verified]:
    """Read all files, from after a key on."""
    here: str | None = after
    while here is not None:
        entries, here = page(objects, here, _MANY, Deadline(timeout))
        for one in entries:
            yield verified(objects, one.name, reached, timeout)


def verified(objects: Objects, key: str, reached: Reached, timeout: float) -> Verified:
    """Read one file."""
    while True:
        known = entry(objects, key, Deadline(timeout))
        if known is None:
            return Verified(key, None, finding("stored-unknown", name=key))
        try:
            opened = StoredObjects(objects).open(key, Deadline(timeout))
        except FileNotFoundError:
            continue  # it was removed just now
        hasher = hashlib.sha256()
        with opened.file as file:
            while part := file.read(_PIECE):
                hasher.update(part)
                reached(len(part))
        if opened.changed() or opened.sha256 != known.sha256:
            continue  # it was replaced meanwhile
        found = None
        if hasher.hexdigest() != known.sha256:
            found = finding("stored-damaged", name=key, size=known.size, sha256=known.sha256)
        return Verified(key, known, found)


def entry(objects: Objects, key: str, deadline: Deadline) -> CatalogueEntry | None:
    """One entry; ``None``: no such object was stored by a store."""
    there = objects.head(key, deadline)
    if there is None or there.token is None or there.sha256 is None:
        return None
    return CatalogueEntry(key, there.size, there.sha256, there.modified, key)
