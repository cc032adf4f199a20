"""``python tests/crash search [RUN]``, ``python tests/crash replay LABEL``."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:1] = [str(TESTS), str(TESTS / "support")]

from crash.command import main  # noqa: E402 - the path comes first

main()
