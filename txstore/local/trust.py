"""Whether the staged bytes of a transfer are those that were recorded: a table, and no disk.

A byte is trusted if this boot wrote it, or if it was flushed.  Otherwise a power loss can have
touched it, and it is read and compared with the running hash before anything is built on it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class Found(Enum):
    """What stands in the place of a staging file."""

    SAME = auto()  #: the recorded inode, with all recorded bytes
    ANOTHER = auto()  #: another inode with as many bytes: a restored backup, or somebody's file
    OLDER = auto()  #: one with the bytes up to the durable point, and fewer than recorded
    NOTHING = auto()  #: none, or one that is shorter still


class Facts(NamedTuple):
    """What is known of a transfer's bytes before any is read.

    :ivar found: what stands in the place of its staging file
    :ivar same_boot: this boot recorded it
    :ivar durable: everything recorded was flushed
    :ivar doubted: a flush failed, or was cut off
    :ivar copied: it has to be copied before it can be written, which flushes it as ours, and there
        is a hash to compare it with
    """

    found: Found
    same_boot: bool
    durable: bool
    doubted: bool
    copied: bool


class Verdict(Enum):
    """What becomes of the bytes."""

    TRUST = auto()  #: built on as they are
    VERIFY = auto()  #: built on if those after the durable point have the recorded hash
    VERIFY_WHOLE = auto()  #: built on if all of them have it
    GO_BACK = auto()  #: given up, back to the durable point
    DAMAGED = auto()  #: refused: in this boot nothing but somebody's hand takes or changes them


def judge(facts: Facts) -> Verdict:
    """The first row that fits."""
    found, same_boot, durable, doubted, copied = facts
    if found in (Found.NOTHING, Found.OLDER):
        if not same_boot:
            return Verdict.GO_BACK
        # A device that was lost and is mounted again, in the same boot, does not have the bytes
        # whose flush failed.
        return Verdict.GO_BACK if doubted and found is Found.OLDER else Verdict.DAMAGED
    if found is Found.ANOTHER:
        return Verdict.VERIFY_WHOLE
    if durable or (same_boot and not copied):
        return Verdict.TRUST
    return Verdict.VERIFY


def judge_unverified(facts: Facts) -> Verdict:
    """What becomes of bytes that were read and do not have the recorded hash."""
    replaced = facts.found is Found.ANOTHER and facts.same_boot
    return Verdict.DAMAGED if replaced else Verdict.GO_BACK
