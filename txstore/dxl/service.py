"""The service: one store on one fabric, for as long as it is not told to stop."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from txstore import FileStoreManager
from txstore.dxl.client_config import load_client_config
from txstore.dxl.config import ServiceConfig
from txstore.dxl.fabric import Connection
from txstore.dxl.handlers import StoreHandlers
from txstore.dxl.logs import about_broker
from txstore.dxl.protocol import SERVICE_TYPE, ErrorReply, Reply, encode_json
from txstore.dxl.telling import Telling
from txstore.errors import (
    FabricError,
    NoAnswerError,
    NoConnectionError,
    ReplacedError,
    StoreClosedError,
    TxStoreError,
)

if TYPE_CHECKING:
    from txstore.metrics import Metrics
    from txstore.metrics.prometheus import PrometheusMetrics

logger = logging.getLogger(__name__)

#: Seconds between two looks at the connection, and between two requests to this very instance,
#: which show that the fabric still knows it.
LOOK_EVERY = 0.25
CHECK_EVERY = 60.0
CHECK_TIMEOUT = 20.0

#: Such requests that may get no answer before it is believed that none ever will.
UNHEARD = 2

#: Seconds: first and longest pause before connecting again.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0

#: Seconds that a clean stop may take.
STOP_TIMEOUT = 25.0

#: Seconds between two looks for what has expired, from and to; a tenth of the shortest lifetime
#: in between.
EXPIRE_EVERY = (0.5, 60.0)
#: The same, at most, where metrics tell what there is.
SHOW_EVERY = 10.0

#: Exit codes: the service failed; its store was removed or replaced, and only a new start helps.
FAILED = 1
REPLACED = 75

_Handlers = Mapping[str, Callable[[Any], "Reply | ErrorReply"]]


class FileTransferService:
    """Stores what unmodified ``dxlfiletransferclient`` senders, and our own, send to its topics.

    Connects again by itself whenever the connection, or its registration, is lost.

    :param config: the folder of configuration, or what was read from it
    :param wrap: changes what answers a topic; for tests that lose an answer
    :param on_round: called again and again as long as the connection is looked after
    :param metrics: counts what is done
    :raises ConfigError: the configuration cannot work
    """

    def __init__(
        self,
        config: ServiceConfig | str | os.PathLike[str],
        *,
        wrap: Callable[[_Handlers], _Handlers] = lambda handlers: handlers,
        on_round: Callable[[], object] = lambda: None,
        metrics: PrometheusMetrics | None = None,
    ) -> None:
        self._config = config if isinstance(config, ServiceConfig) else ServiceConfig.load(config)
        client_config = load_client_config(self._config.config_dir)
        client_config.incoming_message_thread_pool_size = self._config.threads
        client_config.incoming_message_queue_size = self._config.queue_size
        self._client_config = client_config
        self._wrap = wrap
        self._on_round, self._metrics = on_round, metrics
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._heard = False  # a request of its own
        self._unheard = 0
        #: Set while requests are answered.
        self.ready = threading.Event()
        #: Set when the service has ended.
        self.ended = threading.Event()
        #: The process's exit code where it ended without being told to.
        self.exit_code = FAILED

    def __enter__(self) -> FileTransferService:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Open the store, then connect and serve in a thread of its own.

        :raises OSError: the store cannot be opened
        :raises ValueError: an option of the store cannot be
        """
        manager = open_store(self._config, self._metrics)
        self._thread = threading.Thread(
            target=self._run, args=(manager,), name="txstore-service", daemon=True
        )
        self._thread.start()

    def run(self, timeout: float | None = None) -> bool:
        """:meth:`start`, and wait until requests are answered.

        :param timeout: seconds to wait at most
        :return: whether they are
        """
        self.start()
        return self.ready.wait(timeout)

    def stop(self, timeout: float = STOP_TIMEOUT) -> bool:
        """Take no new requests, answer those that have come, and disconnect.

        :param timeout: seconds to wait at most
        :return: whether all of it was done; what was not is no danger to the store
        """
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, manager: FileStoreManager) -> None:
        cleaning = threading.Thread(
            target=self._clean_up, args=(manager,), name="txstore-cleaning", daemon=True
        )
        try:
            with manager:
                cleaning.start()
                handlers = StoreHandlers(manager, self._config, self._end_replaced)
                with Telling(manager, self._config):
                    self._serve(self._wrap(handlers.by_topic()))
        except Exception:
            logger.exception("The service ended")
            raise
        finally:
            self._stop.set()
            self.ready.clear()
            self.ended.set()

    def _told_to_stop(self) -> bool:
        """Asked on each round of whatever waits for the fabric."""
        self._on_round()
        return self._stop.is_set()

    def _pause(self, seconds: float) -> bool:
        """Wait; whether the service is to stop."""
        deadline = time.monotonic() + seconds
        while not self._told_to_stop() and (left := deadline - time.monotonic()) > 0:
            self._stop.wait(min(left, LOOK_EVERY))
        return self._stop.is_set()

    def _end_replaced(self, error: ReplacedError) -> None:
        """No request can be answered any more, but could after a new start, which somebody else,
        who knows whether it was meant so, sees to."""
        if self.exit_code != REPLACED:
            self.exit_code = REPLACED
            logger.error("The service ends, to be started again over what is there now: %s", error)
        self._stop.set()

    def _clean_up(self, manager: FileStoreManager) -> None:
        """Drop what has expired, also where no request comes after whose answer it would be done.

        In a thread of its own: a slow disk must not keep the connection from being looked after.
        """
        least, most = EXPIRE_EVERY
        shortest = min(self._config.expire_after, self._config.keep_completed)
        if self._metrics is not None:
            most = SHOW_EVERY
        while True:
            try:
                manager.expire()
                if self._metrics is not None:
                    self._metrics.show(manager.totals())
            except ReplacedError as error:
                self._end_replaced(error)
            except StoreClosedError:
                return
            except (OSError, TxStoreError) as error:
                logger.warning("Cleaning up was put off: %s", error)
            if self._stop.wait(max(least, min(most, shortest / 10))):
                return

    def _serve(self, handlers: _Handlers) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._connect_and_attend(handlers)
            except FabricError as error:
                if self._stop.is_set():
                    return
                # What held for long did not fail in the way that pauses are made for.
                pause = FIRST_PAUSE if time.monotonic() - began > LONGEST_PAUSE else pause
                logger.warning("Not serving: %s. Connecting again in %.1f s.", error, pause)
                self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _connect_and_attend(self, handlers: _Handlers) -> None:
        logger.info("Connecting")
        connection = Connection(self._client_config, self._told_to_stop)
        with about_broker(connection.broker):
            self._serve_over(connection, handlers)

    def _serve_over(self, connection: Connection, handlers: _Handlers) -> None:
        try:
            service_id = ""
            if self._config.share_group is None:
                service_id = connection.register(SERVICE_TYPE, handlers)
            else:
                connection.share(self._config.share_group, handlers)
            self.ready.set()
            logger.info("Serving %s", self._config.topics.store)
            self._attend(connection, service_id)
        finally:
            self.ready.clear()
            connection.close()

    def _attend(self, connection: Connection, service_id: str) -> None:
        """Return when the service is to stop.

        :raises FabricError: requests do not reach it any more
        """
        check_at = time.monotonic()
        while not self._pause(LOOK_EVERY):
            if not connection.connected:
                raise NoConnectionError("the connection to the fabric was lost")
            if service_id and self._unheard < UNHEARD and time.monotonic() >= check_at:
                self._check(connection, service_id)
                check_at = time.monotonic() + CHECK_EVERY

    def _check(self, connection: Connection, service_id: str) -> None:
        """Send a request to this very instance.

        Registrations expire on the broker, and dxlclient gives up renewing one after a single
        unanswered try: nothing else would tell.

        :raises FabricError: it did not arrive
        """
        try:
            connection.request(
                self._config.topics.status,
                encode_json({"file_id": "self-check"}),
                timeout=CHECK_TIMEOUT,
                service_id=service_id,
                interrupted=self._told_to_stop,
            )
        except NoAnswerError:
            if self._heard or not connection.connected or self._stop.is_set():
                raise
            self._unheard += 1
            if self._unheard < UNHEARD:
                raise
            logger.warning(
                "This service gets no requests from itself; perhaps it may not send to its own"
                " topics. It will not notice when the fabric forgets its registration."
            )
        else:
            self._heard = True


def open_store(config: ServiceConfig, metrics: Metrics | None = None) -> FileStoreManager:
    """The store that a configuration names.

    :param metrics: hears of its work
    :raises OSError: it cannot be opened
    :raises ValueError: an option of it cannot be
    """
    return FileStoreManager(
        config.storage_dir,
        config.working_dir,
        durability=config.durability,
        expire_after=config.expire_after,
        keep_completed=config.keep_completed,
        lock_timeout=config.lock_timeout,
        mode=config.mode,
        allow_network_fs=config.allow_network_fs,
        limits=config.limits,
        on_exists=config.on_exists,
        keep_events=config.keep_events,
        max_events=config.max_events,
        catalogue=config.catalogue,
        auto_migrate=config.auto_migrate,
        metrics=metrics,
    )
