from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


@pytest.fixture
def at_once() -> Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]:
    """Does something with each of several things, all at the same time."""

    def run(work: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
        several = list(things)
        with ThreadPoolExecutor(len(several)) as pool:
            return list(pool.map(work, several))

    return run
