"""Mutants of the engine for many hosts: what fences workers that were taken for dead, and finds out
what became of calls whose answers were lost."""

from __future__ import annotations

from crash.mutants import Mutant
from crash.patches import Patch

_SEARCH = "tests/cluster/test_search.py"

CLUSTER = [
    Mutant(
        "an upload is aborted before its intent is withdrawn",
        (
            Patch(
                "Publisher._settle",
                "self._objects.abort(path, str(current.publish_upload), deadline)",
                "",
            ),
        ),
        (_SEARCH, "-k", "[new]"),
    ),
    Mutant(
        "the object under a name must be the intent's own",
        (
            Patch(
                "Publisher._settle",
                "found is not None and found.token == current.publish_token",
                "found is not None",
            ),
        ),
        (_SEARCH, "-k", "[replaced]"),
    ),
    Mutant(
        "a first file is put only where there is none",
        (
            Patch(
                "Objects.put_new",
                'self._call("put_object", key, deadline, Body=data, Metadata=metadata,'
                ' IfNoneMatch="*")',
                'self._call("put_object", key, deadline, Body=data, Metadata=metadata)',
            ),
        ),
        (_SEARCH, "-k", "[whole]"),
        survives="a store finds out at its first opening whether a PUT keeps its condition; where"
        " it does not, each file is stored by an intent",
    ),
    Mutant(
        "its own object is known where the answer to putting it was lost",
        (
            Patch(
                "Objects.put_new",
                "found is not None and found.token == token",
                "False",
            ),
        ),
        (_SEARCH, "-k", "[whole]"),
        survives="the file is stored once more, by the next attempt of the same call, and recorded"
        " once; it keeps that from being paid for twice",
    ),
    Mutant(
        "an equal last message that was carried out meanwhile is seen",
        (Patch("_check_newest", "records.newest(at, request.file_id) != seen", "False"),),
        (_SEARCH, "-k", "[whole]"),
    ),
    Mutant(
        "who completed an upload looks whether its intent is there still",
        (
            Patch(
                "Publisher._carry_out",
                "current is None or current.publish_token != stored.token",
                "current is None",
            ),
        ),
        (_SEARCH, "-k", "[replaced]"),
        survives="a row is never given another intent by others while its upload can be completed:"
        " they abort it first",
    ),
    Mutant(
        "a cancel whose answer was lost is found out",
        (
            Patch(
                "ClusterEngine._cancel",
                'ended[1] if ended is not None and ended[0] == "cancelled" else 0',
                "0",
            ),
        ),
        (_SEARCH, "-k", "[cancelled]"),
    ),
    Mutant(
        "a last message that ended its transfer is found out",
        (Patch("ClusterEngine._take_last", "last.refused = step.error", "pass"),),
        (_SEARCH, "-k", "[mismatched]"),
    ),
    Mutant(
        "a part takes the place of the tail that it was made of",
        (
            Patch(
                "stage",
                "if at.run(_STAGE, values).rowcount != 1:\n    return False",
                "at.run(_STAGE, values)",
            ),
        ),
        (_SEARCH, "-k", "parts and cancelled"),
        survives="a segment locks the row of its transfer, and compares it, in the transaction that"
        " records a part; it keeps that from becoming a rule for every caller",
    ),
    Mutant(
        "one worker at a time takes a place that a limit gives",
        (
            Patch(
                "Appender._decide",
                "at.run(sa.select(sa.func.pg_advisory_xact_lock(key)))",
                "",
            ),
        ),
        ("tests/cluster/test_limits_at_once.py",),
    ),
    Mutant(
        "an event is in the transaction that ends its transfer",
        (
            Patch(
                "Publisher._complete",
                "records.complete(at, row.file_id, segments, stored, row)",
                "",
            ),
        ),
        (_SEARCH, "-k", "[new]"),
    ),
    Mutant(
        "what fails for a passing reason is made again",
        (Patch("retrying", "deadline.left() <= pause", "True"),),
        (_SEARCH, "-k", "[new]"),
    ),
    Mutant(
        "staged objects that no row speaks of are removed",
        (
            Patch(
                "Cleaning._sweep_page",
                "if orphans:\n    self._objects.delete(orphans, deadline)\n"
                '    logger.info("%d orphaned staged objects were removed", len(orphans))',
                "",
            ),
        ),
        ("tests/cluster/test_clean_up.py",),
    ),
]
