"""What may be wrong with a store: each kind of finding, with what it means and what mends it.

The words are those of any engine; how it looks for them is its own business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from txstore.protocol.catalogue import CatalogueEntry


class Kind(NamedTuple):
    """A kind of finding.  The texts name facts of the finding in braces.

    :ivar meaning: what is wrong
    :ivar remedy: what a person can do about it
    :ivar mend: what ``repair`` will do about it; empty: nothing, since whatever it did could lose
        something acknowledged, or would be a guess
    """

    meaning: str
    remedy: str
    mend: str = ""


_SEND_AGAIN = "Cancel the transfer and have it sent again, or restore the store from a backup."

#: Every kind, by its name.
KINDS: dict[str, Kind] = {
    # --- the journal
    "journal-missing": Kind(
        "The journal {path} is gone, and {left} was left beside it.",
        "Restore the working dir from a backup, or move it away to start afresh: finished files"
        " stay, unfinished transfers have to be sent again.",
    ),
    "journal-damaged": Kind(
        "The journal {path} is damaged: {problem}.",
        "Restore the working dir from a backup, or move it away to start afresh: finished files"
        " stay, unfinished transfers have to be sent again.",
    ),
    "journal-index": Kind(
        "An index of the journal {path} does not fit its rows: {problem}.",
        "Repair it.",
        "make the journal's indexes anew from its rows",
    ),
    "journal-linked": Kind(
        "The journal {path} has a second name, as in a copy that was made of hard links: what is"
        " written here would be written there too.",
        "Remove the copy, or, with no worker running, open the store once.",
        "give the journal a file of its own, unless somebody is using it",
    ),
    # --- the folders
    "folders-mismatched": Kind(
        "The folders do not belong together: {problem}.",
        "Use the pair of folders that belongs together; to move a store, move both.",
    ),
    "marker-missing": Kind(
        "The storage dir does not say which working dir is its own: {path} is missing or damaged.",
        "It is written when the store is opened.",
        "open the store, which writes it",
    ),
    "file-system": Kind(
        "The working dir {path} is on a file system that cannot keep it safe, {fstype}: {problem}.",
        "Move it to a local disk with ext4, XFS or Btrfs.",
    ),
    "space": Kind(
        "{free} {of} are left for {path}, less than the {wanted} that unusual days need.",
        "Make room, or drop transfers: `txstore ls`, `txstore expire`.",
    ),
    "open-to-others": Kind(
        "Users who should not can get at {path}: its mode is {mode}.",
        "Take their permissions away, or repair it.",
        "take the permissions of all others away",
    ),
    "shut-to-workers": Kind(
        "Workers that can use the journal cannot use {path}: it belongs to {owner}, mode {mode}.",
        "Give it the owner, the group and the permissions of the journal, or repair it.",
        "give it the permissions of the journal; its owner stays",
    ),
    "foreign": Kind(
        "{path} is none of the store's files.",
        "It does no harm. Find out whose it is, and move it away.",
    ),
    "leftover": Kind(
        "{path} was left by a worker that died while it made the store.",
        "Repair it, or remove the file while no worker runs.",
        "remove the file",
    ),
    "unreadable": Kind(
        "{path} could not be looked at: {problem}.",
        "Look as a user who may read it.",
    ),
    "busy": Kind(
        "{subject} could not be looked at: a worker has been busy with it for {seconds} s.",
        "Look again. If it stays, look for a worker that hangs (`lslocks`).",
    ),
    # --- unfinished transfers
    "transfer-row": Kind(
        "What the journal says of transfer {file_id!r} cannot be: {problem}.",
        _SEND_AGAIN,
    ),
    "transfer-missing": Kind(
        "The bytes of transfer {file_id!r} are gone: there is no file {path}.",
        _SEND_AGAIN,
    ),
    "transfer-short": Kind(
        "Bytes of transfer {file_id!r} are gone: {path} has {size} of {wanted} bytes.",
        _SEND_AGAIN,
    ),
    "transfer-changed": Kind(
        "The bytes of transfer {file_id!r} are not those that were received: {path} was changed,"
        " or the disk lost something.",
        _SEND_AGAIN,
    ),
    "transfer-linked": Kind(
        "The bytes of transfer {file_id!r} have a second name, as in a copy that was made of hard"
        " links: {path}.",
        "The next segment copies them first, which takes time and space. Remove the other name, or"
        " repair it.",
        "copy the bytes into a file of their own",
    ),
    "orphan": Kind(
        "{path} has {size} bytes that belong to no transfer: a worker died here.",
        "They go by themselves, bit by bit, while the store is used; or repair it.",
        "remove them",
    ),
    # --- stored files
    "stored-missing": Kind(
        "{name!r} was stored, and is not there any more.",
        "Unless somebody took it on purpose, restore it from a backup or have it sent again.",
    ),
    "stored-changed": Kind(
        "{name!r} was stored, and something else stands there now.",
        "Unless somebody changed it on purpose, or a worker died just after it replaced it: restore"
        " it from a backup or have it sent again.",
    ),
    "stored-unknown": Kind(
        "Nothing is known of {name!r}: it is in no catalogue.",
        "If it is there, it was stored before there was a catalogue, or by another program. To have"
        " it looked after, store it again.",
    ),
    "stored-damaged": Kind(
        "{name!r} has other bytes than were stored, though nothing says that anybody wrote it.",
        "Look after the disk. Restore the file from a backup, or have it sent again.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a store, or may be.

    :ivar kind: one of ``KINDS``
    :ivar facts: what the texts name, and more for programs: text and numbers
    """

    kind: str
    facts: Mapping[str, object] = field(hash=False)

    @property
    def meaning(self) -> str:
        """What is wrong, in a sentence."""
        return KINDS[self.kind].meaning.format_map(self.facts)

    @property
    def remedy(self) -> str:
        """What a person can do about it."""
        return KINDS[self.kind].remedy

    @property
    def mend(self) -> str:
        """What ``repair`` will do about it; empty: nothing."""
        return KINDS[self.kind].mend

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        texts = {"meaning": self.meaning, "remedy": self.remedy, "mend": self.mend or None}
        return {"kind": self.kind, **texts, "facts": dict(self.facts)}


def finding(kind: str, **facts: object) -> Finding:
    """A finding of a kind."""
    return Finding(kind, facts)


class Verified(NamedTuple):
    """A file that was read and compared with the catalogue.

    :ivar name: what it is called
    :ivar entry: what the catalogue says; ``None``: nothing
    :ivar found: what is wrong; ``None``: nothing
    """

    name: str
    entry: CatalogueEntry | None
    found: Finding | None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        nothing = dict.fromkeys(("size", "sha256", "stored_at"))
        known = nothing if self.entry is None else self.entry.to_dict()
        return {
            **known,
            "name": self.name,
            "finding": None if self.found is None else self.found.to_dict(),
        }
