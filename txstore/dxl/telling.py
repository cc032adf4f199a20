"""What became of transfers, told to what the service's configuration names."""

from __future__ import annotations

import logging
import threading

from txstore import FileStoreManager
from txstore.dxl.config import ServiceConfig
from txstore.errors import StoreClosedError, TxStoreError
from txstore.events.feed import Delivery, Feed
from txstore.events.handing import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Command,
    Target,
    Webhook,
    hand_over,
)

logger = logging.getLogger(__name__)

#: The consumers, by name: of all workers of a service one at a time has its turn.
EXEC, WEBHOOK = "service exec", "service webhook"
#: Seconds that a command has to end when the service stops.
_PATIENCE = 10.0


class Telling:
    """Hands a store's events on, in threads of their own: no answer waits for them.

    :param manager: closed by whoever made it, after ``stop``
    :raises OSError: the file with the secret cannot be read
    """

    def __init__(self, manager: FileStoreManager, config: ServiceConfig) -> None:
        self._manager = manager
        self._stopped = threading.Event()
        self._feeds: dict[str, Feed[Delivery]] = {}
        targets: dict[str, Target] = {}
        if config.events_exec is not None:
            targets[EXEC] = Command(config.events_exec)
        if config.events_webhook is not None:
            targets[WEBHOOK] = Webhook(config.events_webhook, config.webhook_secret())
        self._threads = [
            threading.Thread(
                target=self._tell, args=one, name=f"txstore-{one[0].replace(' ', '-')}", daemon=True
            )
            for one in targets.items()
        ]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for feed in list(self._feeds.values()):
            feed.stop()
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _tell(self, consumer: str, target: Target) -> None:
        pause = FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                with self._manager.events(consumer, follow=True) as feed:
                    self._feeds[consumer] = feed
                    if not self._stopped.is_set():  # else nobody stops it
                        hand_over(feed, target)
            except StoreClosedError:
                return
            except (OSError, TxStoreError) as error:
                logger.warning("Events are told later: %s", error)
            self._stopped.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
