"""What the crash tests looked at is told at the end of a run, added up over all its processes."""

from __future__ import annotations

from collections import Counter

import pytest
from counted import COUNTED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, counted in report.user_properties:
                    if name == COUNTED:
                        total.update(counted)
    if total:
        terminalreporter.section("what the crash tests looked at")
        for name, count in sorted(total.items()):
            terminalreporter.write_line(f"{count:9d} {name}")
