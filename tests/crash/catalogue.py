"""What the contract says of the catalogue after a crash."""

from __future__ import annotations

import hashlib

from crash.oracle import Expected, broken
from crash.steps import Session, Upload


def check_catalogue(session: Session, expect: Expected, uploads: list[Upload]) -> None:
    """Hold the catalogue of a store that was just opened to what was acknowledged.

    :raises PromiseBrokenError: a stored file is not in it, or one that nobody stored is
    """
    listed: dict[str, str] = {}
    for entry in session.manager().catalogue():
        if entry.name in listed:
            raise broken(3, f"{entry.name} is in the catalogue twice")
        listed[entry.name] = entry.sha256
    for path, sha256 in listed.items():
        stored = {_sha256(one.content) for one in uploads if one.name == path}
        if sha256 not in stored:
            raise broken(3, f"{path} is in the catalogue as something that nobody stored")
    for one in uploads:
        known, name = expect.of(one), expect.name(one)
        # At level "none" a power loss may take the file.
        sure = known.listed and name.latest == one.file_id and not name.damaged
        if sure and name.contents == [one.content] and listed.get(one.name) != one.sha256(one.last):
            raise broken(1, f"{one.name} was acknowledged, and is not in the catalogue as it is")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
