"""Mutants of what keeps anything from piling up, and what is in use from going."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

KEEPING = [
    Mutant(
        "an answered repeat is activity",
        (Patch("Appender.repeat", "self._transfers.save(row, active, call)", "None"),),
        ("tests/contract/test_activity.py",),
    ),
    Mutant(
        "times are the machine's own in every time namespace",
        (Patch("Clock.now", "self.ahead", "0.0"),),
        ("tests/contract/test_activity.py",),
    ),
    Mutant(
        "a full slice is followed by another with the next answer",
        (Patch("Housekeeping._slice", "_SLICE in (len(found), *forgotten)", "False"),),
        ("tests/contract/test_keeping_up.py",),
    ),
    Mutant(
        "what is over goes before an error says that there is no space",
        (
            Patch(
                "LocalEngine._answer_with_room",
                "self._housekeeping.make_room(request.file_id, deadline)",
                "False",
            ),
        ),
        ("tests/local/test_making_room.py",),
    ),
    Mutant(
        "the transfer that needs the room is not dropped for it",
        (Patch("Housekeeping._drop", "row.file_id != spare", "True"),),
        ("tests/local/test_making_room.py",),
    ),
    Mutant(
        "a transfer's age is looked at again under its lock",
        (Patch("Housekeeping._drop_row", "not over.is_over(current.activity)", "False"),),
        ("tests/contract/test_activity.py",),
    ),
]
