"""Every call to either server fails, loses its answer, or is the last one of its worker."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from cluster_search import WORKLOADS, Point, Search
from counted import COUNTED
from crash.mutants import HUNTING
from support import FULL

#: Points of each kind and workload, where not all are looked at.
SOME = 2


def picked(points: list[Point]) -> list[Point]:
    """All at full size, and where a mutant is hunted; otherwise some of each kind."""
    if FULL or HUNTING in os.environ:
        return points
    chance, some = random.Random(str(points[0])), []
    for kind in sorted({one.what for one in points}):
        of_kind = [one for one in points if one.what == kind]
        some += chance.sample(of_kind, min(SOME, len(of_kind)))
    return some


@pytest.mark.parametrize("name", WORKLOADS)
def test_whatever_happens_at_a_call_every_promise_is_kept(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    with Search.begun() as search:
        for point in picked(search.points(name)):
            search.look_at(point)
        record_property(COUNTED, dict(search.looked))
