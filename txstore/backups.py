"""What is told of a backup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Why a store over many hosts is not copied by txstore.
SERVERS_BACKUPS = (
    "the store is kept by servers, which make their own. Back up PostgreSQL first, and then the"
    " bucket: so the bucket has all that the journal speaks of (docs/cluster.md)"
)


class LeftOut(NamedTuple):
    """Something of the store that is not in the backup.

    :ivar what: a stored file's name, or a transfer
    :ivar reason: why, in words
    """

    what: str
    reason: str


@dataclass
class Backup:
    """What a backup has; while it is made, so far.

    :ivar destination: absolute path of the backup, which is a storage dir
    :ivar transfers: unfinished transfers
    :ivar files: stored files, links among them
    :ivar linked: files that were given a second name, since they are on the same file system
    :ivar cloned: files that share their blocks with the store's, which the file system offers
    :ivar copied: files whose bytes were copied
    :ivar unchanged: files that an earlier backup in the same place had already
    :ivar removed: what that one had, and the store has no more
    :ivar bytes: that were copied, those of transfers among them
    :ivar left_out: what is not in it, and why
    """

    destination: str
    transfers: int = 0
    files: int = 0
    linked: int = 0
    cloned: int = 0
    copied: int = 0
    unchanged: int = 0
    removed: int = 0
    bytes: int = 0
    left_out: list[LeftOut] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**vars(self), "left_out": [one._asdict() for one in self.left_out]}


#: Is told what a backup has so far, whenever there is more.
Tell = Callable[[Backup], object]
