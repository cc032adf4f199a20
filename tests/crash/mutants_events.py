"""Mutants of events: each transfer has one, and each consumer sees it at least once, in order."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_CONSUMERS = ("tests/contract/test_events.py",)
_KEEPING = ("tests/contract/test_keeping_events.py",)

EVENTS = [
    Mutant(
        "an event is recorded in the transaction that stores its file",
        (
            Patch(
                "Records.complete",
                "return self.journal.write(deadline, *writes)",
                "return self.journal.write(deadline, *writes[:-1]) and self.journal.write("
                "deadline, writes[-1])",
            ),
        ),
        ("brief followed/segment",),
    ),
    Mutant(
        "an event is recorded in the transaction that drops its transfer",
        (
            Patch(
                "Records.delete",
                "return self.journal.write(deadline, *writes, frees=True)",
                "return self.journal.write(deadline, writes[0], frees=True) and all("
                "self.journal.write(deadline, one) for one in writes[1:])",
            ),
        ),
        ("brief followed/segment",),
    ),
    Mutant(
        "flush of the event of a file in one segment",
        (Patch("WholeFiles._at_once", "self._records.flush(call)", "pass"),),
        ("brief followed/segment",),
    ),
    Mutant(
        "flush of events before they are told",
        (Patch("LocalEvents.after", "self._records.flush(deadline)", "pass"),),
        ("brief told/segment",),
    ),
    Mutant(
        "flush of what a consumer is done with",
        (
            Patch(
                "LocalEvents.done",
                "if self._keeps:\n    self._records.flush(deadline)",
                "",
            ),
        ),
        ("brief followed/segment",),
    ),
    Mutant(
        "a consumer goes on from its cursor as it is when its turn begins",
        (Patch("LocalEvents.take_turn", "turn.cursor = current.cursor", "turn.cursor = 10**9"),),
        ("tests/crash/test_consumer_kills.py",),
    ),
    Mutant(
        "a cursor never goes back",
        (Patch("_MOVE", "sa.func.max(consumer.c.cursor, _p('to'))", "_p('to')"),),
        _CONSUMERS,
    ),
    Mutant(
        "the newest event stays",
        (Patch("_goes", "(number < _NEWEST) & (over | too_many)", "over | too_many"),),
        _KEEPING,
    ),
    Mutant(
        "an event that a consumer is not done with stays",
        (
            Patch(
                "_goes",
                "(number <= _SEEN) & is_over(rows, 'recorded_at')",
                "is_over(rows, 'recorded_at')",
            ),
        ),
        _KEEPING,
    ),
]
