"""Power losses worth looking at: which of the unflushed changes each of them keeps."""

from __future__ import annotations

import random
from collections.abc import Iterator

from txstore.testing.nodes import File, Folder, NameChange
from txstore.testing.powerloss import Loss, Platter


def losses(platter: Platter, seed: str, randoms: int) -> Iterator[Loss]:
    """Power losses worth looking at, from nothing kept to everything.

    :param seed: decides what is torn and what the random ones keep
    :param randoms: how many at random, besides every combination of the plain ones
    """
    has_data = has_wal = False
    for file in platter.pending():
        if file.role == "wal":
            has_wal = True
        else:
            has_data = True
    changes = [
        change
        for node in platter.nodes.values()
        if isinstance(node, Folder)
        for change in node.pending
    ]
    has_names = bool(changes)
    if not (has_data or has_wal or has_names):
        yield Loss("nothing pending", lambda _: True, lambda _file, _index: "kept")
        return
    fates = ("kept", "lost") if has_names else ("kept",)
    if any(change.moved for change in changes):
        fates = (*fates, "unmoved", "both")
    for names in fates:
        for data in ("kept", "lost", "zeros", "torn") if has_data else ("kept",):
            for journal in ("kept", "lost", "some", "torn") if has_wal else ("kept",):
                yield _plain(names, data, journal, seed)
    for number in range(randoms):
        yield _random(f"{seed}/{number}")


def _plain(names: str, data: str, journal: str, seed: str) -> Loss:
    def keeps_data(file: File, index: int) -> str:
        if file.role != "wal":
            return data
        if journal in ("kept", "lost"):
            return journal
        # A prefix of the commits since the last flush; then, if torn, a part of the next.
        prefix = random.Random(f"{seed}/{journal}").randrange(len(file.pending))
        if index < prefix:
            return "kept"
        return "torn" if journal == "torn" and index == prefix else "lost"

    def keeps_name(change: NameChange) -> bool:
        if names == "unmoved":
            return not change.moved
        if names == "both":
            return not (change.moved and change.node is None)
        return names == "kept"

    return Loss(f"{names},{data},{journal}", keeps_name, keeps_data, seed)


def _random(seed: str) -> Loss:
    likely = random.Random(seed).choice((0.2, 0.5, 0.8))

    def keeps_name(change: NameChange) -> bool:
        return random.Random(f"{seed}/{change.at}/{change.name}").random() < likely

    def keeps_data(file: File, index: int) -> str:
        picker = random.Random(f"{seed}/{file.key}-{file.pending[index].at}")
        if picker.random() < likely:
            return "kept"
        return picker.choice(("lost", "zeros", "torn"))

    return Loss(f"random {seed}", keeps_name, keeps_data, seed)
