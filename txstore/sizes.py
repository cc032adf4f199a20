"""Sizes as people write them."""

from __future__ import annotations

import re

_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]+) ?(?:([KMGT])(?:iB)?|B)?", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """The number of bytes in ``500``, ``64K``, ``50 KiB`` or ``2G``.

    :raises ValueError: it is none of these
    """
    parts = _SIZE.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is no size: write bytes, 50KiB or 1MiB")
    return int(parts[1]) * _UNITS[(parts[2] or "B").upper()]
