"""What stores are doing when they crash."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from crash.steps import (
    Cancel,
    Close,
    Consume,
    Expire,
    Look,
    Open,
    Pass,
    Refused,
    Send,
    Step,
    Upload,
    upload,
)
from txstore.limits import Limits
from txstore.local.locks import stripe_of
from txstore.options import Level

DAY = 86400.0


class Workload(NamedTuple):
    """A named list of steps.

    :ivar working: working dir relative to the root; ``None``: the default
    :ivar mounts: folders that cannot be renamed from or to
    :ivar mixed: its managers have levels of their own
    :ivar options: of its managers, and of who recovers
    """

    name: str
    steps: tuple[Step, ...]
    working: str | None = None
    mounts: tuple[str, ...] = ()
    mixed: bool = False
    options: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it

    @property
    def uploads(self) -> list[Upload]:
        found: dict[str, Upload] = {}
        for step in self.steps:
            if isinstance(step, Send | Refused | Cancel):
                found.setdefault(step.upload.file_id, step.upload)
        return list(found.values())

    @property
    def forgets(self) -> bool:
        """Whether completions go, so that the catalogue keeps what was stored."""
        return "keep_completed" in self.options

    @property
    def limits(self) -> Limits | None:
        """What its managers take at most."""
        return self.options.get("limits")

    def tells_of(self, level: Level) -> bool:
        """Whether its events are held to what is promised of them."""
        return level != "none" and any(isinstance(one, Look | Consume) for one in self.steps)


def _all(one: Upload, actor: int = 0) -> list[Step]:
    return [Send(one, number, actor) for number in range(1, one.last + 1)]


def _turns(*lists: list[Step]) -> list[Step]:
    """One step of each in turn."""
    out: list[Step] = []
    for index in range(max(map(len, lists))):
        out += [steps[index] for steps in lists if index < len(steps)]
    return out


def _workload(name: str, *steps: Step, **more: object) -> Workload:
    return Workload(name, (Open(), *steps), **more)  # type: ignore[arg-type]


A = upload("a", "a.bin", 1500, 700, 2100)
B = upload("b", "deep/er/b.bin", 900, 1800)
C = upload("c", "c.bin", 1300, 600, 1200)
OLD = upload("old", "same.bin", 1100, 1700)
NEW = upload("new", "same.bin", 1900, 800)
ONE = upload("one", "one.bin", 2500)
SAME_ONE = upload("same-one", "same.bin", 1600)
EMPTY = upload("empty", "empty.bin", 0)
HOLLOW = upload("hollow", "sub/hollow.bin", 0, 600, 0, 0)
FOUR = upload("four", "four.bin", 1500, 700, 900, 800)
DEEP_ONE = upload("deep-one", "new/er/one.bin", 900)


def twin_of(one: Upload, name: str, *sizes: int) -> Upload:
    """An upload whose transfer and whose name have the same locks as another's."""
    ids, names = (
        next(
            found
            for found in (f"{text}{number}" for number in itertools.count())
            if stripe_of(found.encode()) == stripe_of(wanted.encode())
        )
        for text, wanted in (("twin", one.file_id), (name, one.name))
    )
    return upload(ids, names, *sizes)


TWIN = twin_of(FOUR, "twin", 1000, 600, 500, 700)

#: Two transfers, and bytes for the two largest of these: so a third one is refused, and each of
#: them is taken to its end alone.
LIMITS = Limits(max_transfers=2, max_unfinished_bytes=4500)

WORKLOADS = [
    _workload("one transfer", *_all(A), Close()),
    _workload("long transfers", *_turns(_all(FOUR), _all(TWIN)), Send(FOUR, 4)),
    _workload("three at once", *_turns(_all(A), _all(B), _all(C))),
    _workload("replaced", *_all(OLD), *_all(NEW), *_all(SAME_ONE), Send(NEW, 2)),
    _workload("replaced while unfinished", *_turns(_all(OLD), _all(NEW)), Send(OLD, 2)),
    _workload(
        "cancelled", Send(A, 1), Send(B, 1), Cancel(A), Send(A, 1), Send(A, 2), Cancel(A), Cancel(C)
    ),
    _workload("small ones", *_all(EMPTY), *_all(ONE), *_all(HOLLOW), *_all(ONE)),
    _workload(
        "reopened in the middle",
        Send(A, 1),
        Send(A, 2),
        Close(),
        Open(),
        Send(A, 2),
        Send(A, 3),
        Close(),
        Open(),
        Send(A, 3),
    ),
    _workload(
        "other file system",
        *_turns(_all(A), _all(B)),
        *_all(ONE),
        working="work",
        mounts=("work",),
    ),
    _workload(
        "expired",
        Send(A, 1),
        Send(A, 2),
        Pass(8 * DAY),
        Send(B, 1),
        Expire(),
        Send(B, 2),
    ),
    _workload(
        "nothing replaced",
        *_all(OLD),
        Send(NEW, 1),
        Refused(NEW, 2),
        Send(ONE, 1),
        Refused(SAME_ONE, 1),
        Send(OLD, 2),
        Send(ONE, 1),
        Cancel(NEW),
        *_all(HOLLOW),
        options={"on_exists": "refuse"},
    ),
    _workload(
        "followed",
        Send(ONE, 1),
        Look(),
        *_all(B),
        Consume("index"),
        Send(DEEP_ONE, 1),
        Send(A, 1),
        Consume("index"),
        Cancel(A),
        Send(B, 2),
        *_all(EMPTY),
        Consume("other"),
        Consume("index"),
        *_all(A),
    ),
    _workload(
        "catalogued",
        *_all(OLD),
        Send(ONE, 1),
        *_all(B),
        Pass(90.0),
        Send(NEW, 1),
        Expire(),
        Send(NEW, 2),
        *_all(HOLLOW),
        Pass(90.0),
        Expire(),
        Send(DEEP_ONE, 1),
        Expire(),
        options={"keep_completed": 60.0},
    ),
    _workload(
        "limited",
        Send(A, 1),
        Send(FOUR, 1),
        Refused(B, 1),
        Send(FOUR, 2),
        Refused(FOUR, 3),
        Send(ONE, 1),
        Send(A, 2),
        Send(A, 3),
        Send(FOUR, 3),
        Send(B, 1),
        Refused(C, 1),
        Cancel(FOUR),
        Send(C, 1),
        Send(B, 2),
        Send(OLD, 1),
        Cancel(C),
        Send(OLD, 2),
        options={"limits": LIMITS},
    ),
    Workload(
        "mixed levels",
        (
            Open(0, "none"),
            Open(1, "segment"),
            Open(2, "file"),
            Send(A, 1, 0),
            Send(A, 1, 1),
            Send(A, 2, 2),
            Send(B, 1, 2),
            Send(B, 2, 0),
            Send(B, 2, 1),
            Send(A, 2, 1),
            Send(OLD, 1, 1),
            Send(OLD, 2, 0),
            Send(ONE, 1, 0),
            Send(A, 3, 2),
            Send(OLD, 2, 2),
            Send(ONE, 1, 1),
        ),
        mixed=True,
    ),
]

#: A little of everything, for faults at every call.
ALL_SORTS = _workload(
    "all sorts",
    Send(A, 1),
    Send(A, 2),
    Send(A, 2),
    Send(B, 1),
    Send(C, 1),
    Cancel(C),
    Send(A, 3),
    Send(A, 3),
    Send(ONE, 1),
    Close(),
    Open(),
    Send(B, 2),
    Send(B, 2),
)

#: A file in one segment comes under the name of one whose publishing failed.
LEFT_INTENT = _workload("left intent", Send(OLD, 1), Send(OLD, 2), Send(SAME_ONE, 1))

#: Short ones, in which mutants are hunted.
BRIEF = [
    _workload("brief", *_all(B), *_all(ONE), Send(B, 2)),
    _workload("brief replaced", *_all(OLD), *_all(SAME_ONE)),
    _workload("brief refused", *_all(DEEP_ONE), Send(DEEP_ONE, 1), options={"on_exists": "refuse"}),
    _workload("brief told", Send(ONE, 1), Look(), Send(DEEP_ONE, 1), Look()),
    _workload(
        "brief followed",
        Consume("index"),
        Send(ONE, 1),
        *_all(B),
        Send(C, 1),
        Cancel(C),
        Consume("index"),
        Send(DEEP_ONE, 1),
    ),
    _workload(
        "brief catalogued",
        *_all(OLD),
        *_all(B),
        Pass(90.0),
        Send(SAME_ONE, 1),
        Expire(),
        options={"keep_completed": 60.0},
    ),
    _workload("brief limited", Send(A, 1), Send(FOUR, 1), Cancel(A), options={"limits": LIMITS}),
    _workload("brief cancelled", Send(A, 1), Send(A, 2), Cancel(A)),
    Workload(
        "brief repeats",
        (
            Open(0, "none"),
            Open(1, "segment"),
            Send(ONE, 1, 1),
            Send(B, 1, 0),
            Send(B, 2, 0),
            Send(B, 2, 1),
        ),
        mixed=True,
    ),
    Workload(
        "brief mixed",
        (
            Open(0, "none"),
            Open(1, "segment"),
            Send(ONE, 1, 1),
            Send(A, 1, 0),
            Send(A, 1, 1),
            Send(C, 1, 1),
            Cancel(C, 0),
            Cancel(C, 1),
            Send(B, 1, 0),
            Send(B, 2, 0),
            Send(B, 2, 1),
            Send(A, 2, 1),
            Send(A, 3, 0),
        ),
        mixed=True,
    ),
    _workload("brief deep", *_all(B)),
    Workload(
        "brief cancelled below",
        (Open(0, "none"), Open(1, "segment"), Send(C, 1, 1), Cancel(C, 0), Cancel(C, 1)),
        mixed=True,
    ),
    _workload("brief deep one", *_all(DEEP_ONE)),
    _workload("brief later", Send(FOUR, 1), Send(FOUR, 2), Close(), Open(), Send(FOUR, 3)),
    Workload(
        "brief above later",
        (
            Open(0, "none"),
            Open(1, "segment"),
            Send(FOUR, 1, 1),
            Send(FOUR, 2, 1),
            Send(FOUR, 3, 0),
        ),
        mixed=True,
    ),
    Workload(
        "brief begun below",
        (
            Open(0, "none"),
            Open(1, "segment"),
            Send(ONE, 1, 1),
            Send(FOUR, 1, 0),
            Send(FOUR, 2, 1),
            Send(FOUR, 3, 1),
        ),
        mixed=True,
    ),
    Workload(
        "brief below in between",
        (
            Open(0, "none"),
            Open(1, "segment"),
            Send(FOUR, 1, 1),
            Send(FOUR, 2, 0),
            Send(FOUR, 3, 1),
        ),
        mixed=True,
    ),
    Workload(
        "brief finished below",
        (
            Open(0, "none"),
            Open(1, "segment"),
            Send(B, 1, 1),
            Send(B, 2, 0),
            Send(OLD, 1, 1),
            Send(OLD, 2, 0),
        ),
        mixed=True,
    ),
]

BY_NAME = {one.name: one for one in [*WORKLOADS, ALL_SORTS, LEFT_INTENT, *BRIEF]}
