"""Which staged bytes are built on: each combination of facts, row by row."""

from __future__ import annotations

from itertools import product

import pytest

from txstore.local.trust import Facts, Found, Verdict, judge, judge_unverified

ANY = (False, True)

#: found, same boot, durable, doubted, to be copied: what is right, and what if the hash is not.
#: ``None``: either.
ROWS = [
    # all bytes are there, in the recorded file
    (Found.SAME, None, True, None, None, Verdict.TRUST, None),
    (Found.SAME, True, False, None, False, Verdict.TRUST, None),
    (Found.SAME, True, False, None, True, Verdict.VERIFY, Verdict.GO_BACK),
    (Found.SAME, False, False, None, None, Verdict.VERIFY, Verdict.GO_BACK),
    # in another file
    (Found.ANOTHER, True, None, None, None, Verdict.VERIFY_WHOLE, Verdict.DAMAGED),
    (Found.ANOTHER, False, None, None, None, Verdict.VERIFY_WHOLE, Verdict.GO_BACK),
    # only those up to the durable point
    (Found.OLDER, False, None, None, None, Verdict.GO_BACK, None),
    (Found.OLDER, True, None, True, None, Verdict.GO_BACK, None),
    (Found.OLDER, True, None, False, None, Verdict.DAMAGED, None),
    # not even those
    (Found.NOTHING, False, None, None, None, Verdict.GO_BACK, None),
    (Found.NOTHING, True, None, None, None, Verdict.DAMAGED, None),
]


def expected(facts: Facts) -> tuple[Verdict, Verdict | None]:
    """What the one row says that fits."""
    (row,) = (
        row
        for row in ROWS
        if row[0] is facts[0]
        and all(want in (None, got) for want, got in zip(row[1:5], facts[1:], strict=True))
    )
    return row[5], row[6]


@pytest.mark.parametrize("found", Found)
def test_what_is_built_on_is_what_the_table_says(found: Found) -> None:
    for flags in product(ANY, repeat=4):
        facts = Facts(found, *flags)
        right, unverified = expected(facts)
        assert judge(facts) is right, facts
        if unverified is not None:
            assert judge_unverified(facts) is unverified, facts
