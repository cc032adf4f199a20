"""The catalogue over many hosts: the objects themselves, whose metadata says what was stored."""

from __future__ import annotations

from txstore.cluster.objects import Objects
from txstore.cluster.stored import StoredObjects
from txstore.deadline import Deadline
from txstore.protocol.catalogue import CatalogueEntry, Page

#: Objects that one call asks for at most, one by one.
_MANY = 100


def page(objects: Objects, after: str, limit: int, deadline: Deadline) -> Page:
    """Some entries.  Objects that no store made have none."""
    limit = min(limit, _MANY)
    files = StoredObjects(objects).files(after or None, limit, deadline)
    found = (entry(objects, one.name, deadline) for one in files)
    return [one for one in found if one is not None], files[-1].name if len(
        files
    ) == limit else None


def entry(objects: Objects, key: str, deadline: Deadline) -> CatalogueEntry | None:
    """One entry; ``None``: no such object was stored by a store."""
    there = objects.head(key, deadline)
    if there is None or there.token is None or there.sha256 is None:
        return None
    return CatalogueEntry(key, there.size, there.sha256, there.modified, key)
