"""What a service tells whoever started it (``sd_notify(3)``)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from txstore.dxl.heartbeat import Heartbeat


class Herald:
    """Says how a service is: to systemd, if that started it, and once to people.

    :param say_ready: called when requests are answered for the first time
    :ivar alive: to be called again and again while it lives
    """

    def __init__(self, say_ready: Callable[[], object]) -> None:
        self._say_ready: Callable[[], object] | None = say_ready
        watched = "WATCHDOG_USEC" in os.environ
        self.alive = Heartbeat(lambda: _tell("WATCHDOG=1") if watched else None)

    def ready(self) -> None:
        """Requests are answered, for the first time or after a reload."""
        say, self._say_ready = self._say_ready, None
        if say is not None:
            say()
        _tell("READY=1")

    def reloading(self) -> None:
        """The configuration is read again; ``ready`` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        _tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """No more requests are taken."""
        _tell("STOPPING=1")


def _tell(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # Nobody may listen there any more: it is only a word on the way, and no reason to end.
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as notify:
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.sendall(state.encode())
