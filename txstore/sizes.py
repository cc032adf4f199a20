"""Sizes and lengths of time as people write them."""

from __future__ import annotations

import re

_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"([0-9]+) ?(?:([KMGT])(?:iB)?|B)?", re.ASCII | re.IGNORECASE)

_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%", re.ASCII)


def parse_size(text: str) -> int:
    """The number of bytes in ``500``, ``64K``, ``50 KiB`` or ``2G``.

    :raises ValueError: it is none of these
    """
    parts = _SIZE.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is no size: write bytes, 50KiB or 1MiB")
    return int(parts[1]) * _UNITS[(parts[2] or "B").upper()]


def parse_share(text: str) -> float:
    """A share of a whole as a number from 0 to 1: ``5%``, ``0.5 %``.

    :raises ValueError: it is none
    """
    match = _SHARE.fullmatch(text)
    if match is None or float(match[1]) > 100:
        raise ValueError(f"{text!r:.100} is no share: write 5%")
    return float(match[1]) / 100


def parse_size_or_share(text: str) -> int | str:
    """The number of bytes that a size says; a share stays as it is.

    :raises ValueError: it is neither
    """
    if text.endswith("%"):
        parse_share(text)
        return text
    return parse_size(text)


def parse_duration(text: str) -> float:
    """Seconds, as a number alone or with a unit: ``90``, ``15m``, ``12h``, ``7d``.

    :raises ValueError: it is none
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.lower())
    if match is None:
        raise ValueError(f"should be a time such as 90, 90s, 15m, 12h or 7d, but is {text!r}")
    return float(match[1]) * _SECONDS[match[2]]
