"""Mutants of limits and of the policy for names that are taken: both are exact, and a refusal
changes nothing."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_TOGETHER = ("tests/contract/test_limits_together.py",)
_NAMES = ("tests/contract/test_on_exists.py",)
_CUT_OFF = ("tests/crash/test_taken_names.py",)

LIMITS = [
    Mutant(
        "limit of a file's size under the transfer's lock",
        (Patch("_admit", "size_refusal(limits, request, known.received)", "None"),),
        ("tests/contract/test_limits.py",),
    ),
    Mutant(
        "the statement that begins a transfer counts all of them",
        (
            Patch(
                "INSERT",
                "_max_transfers.is_(None) | (_max_transfers > TRANSFERS)",
                "_max_transfers.is_(None) | (_max_transfers > 0)",
            ),
        ),
        _TOGETHER,
    ),
    Mutant(
        "the statement that records a segment adds up the bytes of all",
        (Patch("HAS_BYTES", "_bytes + _more <= _max_bytes", "_more <= _max_bytes"),),
        _TOGETHER,
    ),
    Mutant(
        "what was recorded counts for a limit, whoever recorded it before a crash",
        (Patch("_bytes", "sa.select(_sum).scalar_subquery()", "sa.literal_column('0')"),),
        ("brief limited/segment",),
    ),
    Mutant(
        "a segment that is refused after it was staged holds no space",
        (Patch("Appender.append", "staged.cut(row.offset)", "pass"),),
        _TOGETHER,
    ),
    Mutant(
        "whether a name is taken is decided under its lock",
        (
            Patch(
                "LocalEngine._decide",
                "if step is Fact.TAKEN: break",
                """\
                if step is Fact.TAKEN:
                    place = self._publisher.resolve(request.store, None)
                    known = replace(known, taken=self._publisher.is_taken(place))
                    continue""",
            ),
        ),
        _NAMES,
    ),
    Mutant(
        "an intent precedes the rename where a file may be in its own way",
        (
            Patch(
                "WholeFiles.publish",
                "publish = self._at_once if self._replaces else self._by_intent",
                "publish = self._at_once",
            ),
        ),
        ("brief refused/segment",),
    ),
    Mutant(
        "who replaces nothing carries out no intent that replaces a file",
        (
            Patch(
                "Intents._settle_held",
                "not self._replaces and row.publish_over is not None",
                "False",
            ),
        ),
        _CUT_OFF,
    ),
    Mutant(
        "what replaces nothing is not carried out over a file that came since",
        (
            Patch(
                "Intents._settle_held",
                "self._publisher.standing(place, parents) != row.publish_over",
                "row.publish_over is not None",
            ),
        ),
        _CUT_OFF,
    ),
    Mutant(
        "an intent without a segment is over when it is withdrawn",
        (Patch("Publisher.withdraw", "self._records.delete(row, call)", "pass"),),
        _CUT_OFF,
    ),
    Mutant(
        "a file in one segment whose intent is recorded counts for no limit",
        (
            Patch(
                "TRANSFERS",
                "_rows.scalar_subquery() - _whole.scalar_subquery()",
                "_rows.scalar_subquery()",
            ),
        ),
        _CUT_OFF,
    ),
]
