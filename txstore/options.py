"""The options of a store, checked."""

from __future__ import annotations

import math
import sys
from enum import Enum
from typing import Literal

from txstore.errors import OptionError

#: What an application calls a level.
Level = Literal["segment", "file", "none"]
#: What becomes of a last message whose file's name is taken.
OnExists = Literal["replace", "refuse"]


class Durability(Enum):
    """The level at which a manager answers.

    :ivar keeps_segments: whether an acknowledged segment survives a power loss
    :ivar keeps_files: whether an acknowledged ``store`` or ``cancel`` survives one
    """

    SEGMENT = "segment"
    FILE = "file"
    NONE = "none"

    def __init__(self, name: str) -> None:
        self.keeps_segments = name == "segment"
        self.keeps_files = name != "none"

    @classmethod
    def of(cls, value: object) -> Durability:
        """The level that a caller names.

        :raises OptionError: there is no such level
        """
        for level in cls:
            if value in (level, level.value):
                return level
        names = ", ".join(repr(level.value) for level in cls)
        raise OptionError(
            f"durability must be one of {names}, not {value!r}.",
            option="durability",
            received=value,
        )


def replaces(on_exists: object) -> bool:
    """Whether files are replaced.

    :raises OptionError: it is neither ``"replace"`` nor ``"refuse"``
    """
    if on_exists not in ("replace", "refuse"):
        raise OptionError(
            f"on_exists must be 'replace' or 'refuse', not {on_exists!r:.100}.",
            option="on_exists",
            received=on_exists,
        )
    return on_exists == "replace"


def seconds(option: str, value: object) -> float:
    """A length of time.

    :raises OptionError: it is not a number from 0, or an integer that no float can hold
    """
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            # Not shown: Python refuses to write out more than some thousand digits.
            raise OptionError(
                f"{option} must be a number of seconds from 0 to {sys.float_info.max:g}, or inf.",
                option=option,
                received=value,
            ) from None
    if not number >= 0:
        raise OptionError(
            f"{option} must be a number of seconds from 0, not {value!r}.",
            option=option,
            received=value,
        )
    return number


def count(option: str, value: object) -> int:
    """How many there may be.

    :raises OptionError: it is not a whole number from 1 that the journal can hold
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**63:
        # Not shown: Python refuses to write out more than some thousand digits.
        raise OptionError(
            f"{option} must be a whole number from 1, less than 2**63.",
            option=option,
            received=value,
        )
    return value


def flag(option: str, value: object) -> bool:
    """Whether something is wanted.

    :raises OptionError: it is neither ``True`` nor ``False``
    """
    if not isinstance(value, bool):
        raise OptionError(
            f"{option} must be True or False, not {value!r:.100}.", option=option, received=value
        )
    return value


def consumer_name(value: object) -> str:
    """The name of a consumer of events.

    :raises OptionError: it is no text of 1 to 255 characters that can be shown
    """
    if not isinstance(value, str) or not 1 <= len(value) <= 255 or not value.isprintable():
        raise OptionError(
            "The name of a consumer must be text of 1 to 255 characters that can be shown, not"
            f" {value!r:.300}.",
            option="consumer",
            received=value,
        )
    return value


def file_mode(value: object) -> int:
    """Permission bits for the store's own files.

    :raises OptionError: the owner could not work with them, or somebody could execute them
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value & ~0o666
        or value & 0o600 != 0o600
    ):
        raise OptionError(
            f"mode must let the owner read and write and nobody execute, not {value!r}.",
            option="mode",
            received=value,
        )
    return value
