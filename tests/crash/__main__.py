"""``python tests/crash search [RUN]``, ``python tests/crash replay LABEL``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from crash.command import main  # noqa: E402 - the path comes first

main()
