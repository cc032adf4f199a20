"""One process that serves until it is told to stop, and changes its configuration on the way."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from txstore.dxl.config import ServiceConfig
from txstore.dxl.service import FileTransferService

logger = logging.getLogger(__name__)

#: Seconds between two looks, and for which a service with a new configuration may fail to connect
#: while the old one does not.
_LOOK_EVERY = 0.1
COMES_UP = 30.0


class Serving:
    """Serves in this process.  ``stop`` and ``change`` may be called by any thread.

    :param config: what is served
    :param make: makes a service of a configuration; may raise ``ValueError``
    :param on_ready: called when requests are answered: at first, and after each change
    :param on_stopping: called when it is told to stop
    """

    def __init__(
        self,
        config: ServiceConfig,
        make: Callable[[ServiceConfig], FileTransferService],
        on_ready: Callable[[], None],
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        self._make, self._on_ready, self._on_stopping = make, on_ready, on_stopping
        self._stopped = threading.Event()
        self._changes: queue.SimpleQueue[ServiceConfig] = queue.SimpleQueue()
        self._service = make(config)

    def stop(self) -> None:
        """Have ``run`` stop cleanly."""
        self._stopped.set()

    def change(self, config: ServiceConfig) -> None:
        """Have another configuration served."""
        self._changes.put(config)

    def run(self) -> int:
        """Serve until told to stop.

        :return: the process's exit code: 0 after a clean stop
        """
        self._service.start()
        said = False
        while not self._stopped.wait(_LOOK_EVERY) and not self._service.ended.is_set():
            if not said and self._service.ready.is_set():
                said = True
                self._on_ready()
            with suppress(queue.Empty):
                self._take(self._changes.get_nowait())
                said = False
        if self._service.ended.is_set():
            return self._service.exit_code
        logger.info("Stopping")
        self._on_stopping()
        if self._service.stop():
            return 0
        logger.error("A request did not end in time; leaving it to the next start")
        return 1

    def _take(self, config: ServiceConfig) -> None:
        """Serve another configuration.  The old service goes on until the new one answers, so that
        no request goes to nobody."""
        old = self._service
        try:
            new = self._make(config)
            new.start()
        except (OSError, ValueError) as error:
            logger.error("It goes on as before: the new configuration cannot work: %s", error)
            return
        for _ in range(int(COMES_UP / _LOOK_EVERY)):
            # Where the broker is away, there is nothing to be kept up.
            if new.ready.is_set() or not old.ready.is_set() or self._stopped.is_set():
                break
            self._stopped.wait(_LOOK_EVERY)
        else:
            logger.error(
                "It goes on as before: with the new configuration it did not come up within %g s",
                COMES_UP,
            )
            old, new = new, old
        self._service = new
        old.stop()
