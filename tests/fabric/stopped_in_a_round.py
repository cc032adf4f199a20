"""Imported by a service: its supervisor stops the whole service once, between two of its waits."""

from __future__ import annotations

import os
import signal
from typing import Any

from txstore.dxl import supervisor

#: Rounds that it makes before: the workers are ready, and have given signs of life.
ROUNDS = 10


class _Supervisor(supervisor.Supervisor):
    def __init__(self, *args: Any) -> None:
        *others, on_round = args
        super().__init__(*others, on_round=self._stop_once)
        self._round = on_round
        self._left = ROUNDS

    def _stop_once(self) -> None:
        self._round()
        self._left -= 1
        if self._left == 0:
            os.killpg(0, signal.SIGSTOP)


supervisor.Supervisor = _Supervisor  # type: ignore[misc]
