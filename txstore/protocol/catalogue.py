"""What the store says of a file that it stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class CatalogueEntry:
    """A stored file, as it was when it was stored.

    :ivar name: what it is called, relative to the storage dir
    :ivar size: bytes
    :ivar sha256: lower-case hex
    :ivar stored_at: when (UTC)
    :ivar key: where it is in the catalogue, for who goes on after it
    """

    name: str
    size: int
    sha256: str
    stored_at: datetime
    key: str = field(repr=False)

    def to_dict(self) -> dict[str, str | int]:
        """The same for JSON, without the key; the time as ISO 8601."""
        return {
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "stored_at": self.stored_at.isoformat(),
        }


#: Hears how many bytes of a file were read, piece by piece.  May raise: then reading ends.
Reached = Callable[[int], object]


#: Some entries, and the key to go on after; ``None``: there are no more.
Page = tuple[list[CatalogueEntry], "str | None"]
