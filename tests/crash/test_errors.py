"""A failed disk is not the end: any call may fail, once or from then on.

What is checked of each fault is in ``errors.py``.  A seeded sample of the faults is injected here,
with as many of each call as of any other; ``python tests/crash faults`` injects
more, and with ``--count 1000000`` all there are.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from counted import COUNTED

from crash.command import FAULTY, fault_command, run_of
from crash.errors import inject_some

COUNT = 30


@pytest.mark.parametrize("name", FAULTY)
def test_a_failed_call_costs_nothing(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    struck, failures = inject_some(run_of(name), COUNT)
    record_property(COUNTED, {"faults injected": struck})
    assert struck
    shown = "\n".join(f"{fault_command(label)}\n{text}" for label, text in failures[:5])
    assert not failures, f"{len(failures)} of {struck}:\n{shown}"
