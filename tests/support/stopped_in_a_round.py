"""Imported by a service: its supervisor stops the whole service once, between two of its waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from txstore.dxl import ServiceConfig, supervisor

#: Rounds that it makes before: the workers are ready, and have given signs of life.
ROUNDS = 10


class _Supervisor(supervisor.Supervisor):
    def __init__(
        self,
        config: ServiceConfig,
        count: int,
        on_ready: Callable[[], None],
        on_round: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(config, count, on_ready, self._stop_once)
        self._round = on_round
        self._left = ROUNDS

    def _stop_once(self) -> None:
        self._round()
        self._left -= 1
        if self._left == 0:
            os.killpg(0, signal.SIGSTOP)


setattr(supervisor, "Supervisor", _Supervisor)  # noqa: B010 - a class that others name
