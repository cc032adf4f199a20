"""How far a command was that only reads: kept in a file of the user's, not in the store."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

#: Seconds between two writings: what is lost by a kill.
_INTERVAL = 1.0


@dataclass
class Way:
    """How far it is.

    :ivar after: key of the last entry that was read
    :ivar files: how many were read
    :ivar bytes: that they have
    :ivar wrong: how many findings there were
    """

    after: str = ""
    files: int = 0
    bytes: int = 0
    wrong: int = 0


class Remembered:
    """The way of one command over one store, for the next run of it.

    :param command: its name
    :param store: what tells the store from others
    """

    def __init__(self, command: str, *store: str) -> None:
        digest = hashlib.sha256("\0".join(store).encode(errors="surrogateescape")).hexdigest()
        state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        self._path = os.path.join(state, "txstore", f"{command}-{digest[:16]}.json")
        self._due = time.monotonic() + _INTERVAL

    def load(self) -> Way | None:
        """How far the run before was; ``None``: it came to its end, or nothing is known."""
        try:
            with open(self._path, encoding="ascii") as file:
                found = json.load(file)
            return Way(str(found["after"]), *(int(found[n]) for n in ("files", "bytes", "wrong")))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # torn by a power loss, say

    def keep(self, way: Way, *, now: bool = False) -> None:
        """Remember it, once in a while.  Where that cannot be, the next run begins anew.

        :param now: at once
        """
        if not now and time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _INTERVAL
        new = f"{self._path}.{os.getpid()}"
        with suppress(OSError):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            with open(new, "w", encoding="ascii") as file:
                json.dump(asdict(way), file)  # a name that is no text as escapes
            os.replace(new, self._path)

    def forget(self) -> None:
        """It came to its end."""
        with suppress(OSError):
            os.unlink(self._path)
