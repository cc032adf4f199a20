"""The service: one store on one fabric, for as long as it is not told to stop."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from txstore import FileStoreManager
from txstore.dxl.config import ServiceConfig
from txstore.dxl.errors import FabricError, NoAnswerError, NoConnectionError
from txstore.dxl.fabric import Connection, load_client_config
from txstore.dxl.handlers import StoreHandlers
from txstore.dxl.protocol import SERVICE_TYPE, ErrorReply, Reply, encode_json
from txstore.limits import Limits

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

_Handlers = Mapping[str, Callable[[Any], "Reply | ErrorReply"]]


class FileTransferService:
    """Stores what unmodified ``dxlfiletransferclient`` senders, and our own, send to its topics.

    Connects again by itself whenever the connection, or its registration, is lost.

    :param config: the folder of configuration, or what was read from it
    :param wrap: changes what answers a topic; for tests that lose an answer
    :raises ConfigError: the configuration cannot work
    """

    def __init__(
        self,
        config: ServiceConfig | str | os.PathLike[str],
        *,
        wrap: Callable[[_Handlers], _Handlers] = lambda handlers: handlers,
    ) -> None:
        self._config = config if isinstance(config, ServiceConfig) else ServiceConfig.load(config)
        client_config = load_client_config(self._config.config_dir)
        client_config.incoming_message_thread_pool_size = self._config.threads
        client_config.incoming_message_queue_size = self._config.queue_size
        self._client_config = client_config
        self._wrap = wrap
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._heard = False  # a request of its own
        self._unheard = 0
        #: Set while requests are answered.
        self.ready = threading.Event()
        #: Set when the service has ended.
        self.ended = threading.Event()

    def __enter__(self) -> FileTransferService:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Open the store, then connect and serve in a thread of its own.

        :raises OSError: the store cannot be opened
        :raises ValueError: an option of the store cannot be
        """
        manager = open_store(self._config)
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
        try:
            with manager:
                handlers = self._wrap(StoreHandlers(manager, self._config).by_topic())
                self._serve(handlers)
        except Exception:
            logger.exception("The service ended")
            raise
        finally:
            self.ready.clear()
            self.ended.set()

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
                self._stop.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _connect_and_attend(self, handlers: _Handlers) -> None:
        logger.info("Connecting")
        connection = Connection(self._client_config, self._stop.is_set)
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
        while not self._stop.wait(LOOK_EVERY):
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
                interrupted=self._stop.is_set,
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


def open_store(config: ServiceConfig) -> FileStoreManager:
    """The store that a configuration names.

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
        limits=Limits(max_file_size=config.max_file_size),
    )
