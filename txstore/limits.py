"""What a store takes at most.  A limit refuses new work; it never drops what was recorded."""

from __future__ import annotations

from dataclasses import dataclass, fields

from txstore.errors import OptionError
from txstore.sizes import parse_share


@dataclass(frozen=True)
class Limits:
    """The limits of a store; ``None`` is none.

    Each is exact against any number of threads and processes, but ``min_free``: other programs use
    the disk, too.

    :ivar max_file_size: bytes that a file may have
    :ivar max_transfers: unfinished transfers that there may be.  A file in one segment is none
    :ivar max_unfinished_bytes: bytes that all unfinished transfers may have together.  The last
        segment of one is always taken: it ends it
    :ivar min_free: bytes of the file system that are kept free, or a share of it such as ``"5%"``.
        Below it a new file is refused; below half of it a next segment is.  A last segment that
        ends a transfer is always taken
    :raises OptionError: a limit is no whole number from 0, and no share (a ``ValueError``)
    """

    max_file_size: int | None = None
    max_transfers: int | None = None
    max_unfinished_bytes: int | None = None
    min_free: int | str | None = None

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is None or (type(value) is int and value >= 0):
                continue
            kinds = "a whole number from 0"
            if option.name == "min_free":
                kinds += ", a share such as '5%'"
                if isinstance(value, str) and _is_share(value):
                    continue
            raise OptionError(
                f"{option.name} must be {kinds}, or None, not {value!r:.100}.",
                option=option.name,
                received=value,
            )

    def kept_free(self, total: int) -> int:
        """Bytes that are kept free of a file system.

        :param total: bytes that it has
        """
        if isinstance(self.min_free, str):
            return int(total * parse_share(self.min_free))
        return self.min_free or 0


def _is_share(text: str) -> bool:
    try:
        parse_share(text)
    except ValueError:
        return False
    return True
