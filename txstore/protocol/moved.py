"""What a journal says in the place of its version while its store must not be worked on: it was
moved, or it is being filled.

Every worker looks at the version, also one of an older txstore: so none goes on.
"""

from __future__ import annotations

import json
from typing import Literal, NamedTuple, Protocol

from txstore.errors import StoreMovedError

#: ``"to"``: what was here is there, and only there. ``"from"``: what is there comes here, and not
#: all of it is here yet.
Way = Literal["to", "from"]

_WORDS: dict[str, Way] = {"moved to ": "to", "filled from ": "from"}


class Store(Protocol):
    """What has an id that no other has."""

    @property
    def store_id(self) -> str: ...


class Fence(NamedTuple):
    """Keeps workers off a store.

    :ivar storage_dir: of the other store
    :ivar working_dir: likewise
    :ivar store_id: likewise: another one may have been made there since
    """

    way: Way
    storage_dir: str
    working_dir: str
    store_id: str

    def __str__(self) -> str:
        words = next(words for words, way in _WORDS.items() if way == self.way)
        return words + json.dumps(self[1:])

    @classmethod
    def read(cls, version: str) -> Fence | None:
        """The fence that a version is; ``None``: it is an ordinary one."""
        for words, way in _WORDS.items():
            if version.startswith(words):
                return cls(way, *json.loads(version[len(words) :]))
        return None

    def is_of(self, other: Store) -> bool:
        """Whether another store is the one that it speaks of, whatever its address is by now."""
        return self.store_id == other.store_id

    def error(self, path: str) -> StoreMovedError:
        """What a worker is told.

        :param path: of the journal
        """
        return StoreMovedError(
            path,
            storage_dir=self.storage_dir,
            working_dir=self.working_dir,
            finished=self.way == "to",
        )
