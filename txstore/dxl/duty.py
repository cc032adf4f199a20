"""What a worker is told by its supervisor when it is started."""

from __future__ import annotations

from typing import NamedTuple

from txstore.dxl.config import ServiceConfig
from txstore.dxl.logs import Logs


class Duty(NamedTuple):
    """What a worker is to do.

    :ivar config: what it serves
    :ivar number: its number among the workers, from 1
    :ivar logs: how it logs
    :ivar metrics: folder in which it counts what it does; ``None``: nobody wants to know
    """

    config: ServiceConfig
    number: int
    logs: Logs
    metrics: str | None
