"""A connection to a DXL fabric, made of what ``dxlclient`` offers.

``dxlclient`` reconnects by itself.  But an answer over a lost connection is awaited to the end of
its time limit, and a service whose re-registration gets no answer is never registered again.  Here
a lost connection is noticed at once, and replaced by a new one from the beginning.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dxlclient.callbacks import RequestCallback, ResponseCallback
from dxlclient.client import DxlClient
from dxlclient.message import ErrorResponse, Message, Request, Response
from dxlclient.service import ServiceRegistrationInfo

from txstore.dxl.client_config import check_reachable
from txstore.dxl.logs import about_request
from txstore.dxl.protocol import ErrorReply, Reply
from txstore.errors import (
    FabricError,
    NoAnswerError,
    NoConnectionError,
    RemoteError,
    UnsendableTextError,
)

logger = logging.getLogger(__name__)

#: Minutes after which a registration is renewed; a broker routes to a vanished service at most
#: about this long.
REGISTRATION_TTL = 10

#: Seconds that the confirmation of a registration, and a clean goodbye, may take.  dxlclient asks
#: for the former once and waits 10 s for the answer.
REGISTER_TIMEOUT = 11
CLOSE_TIMEOUT = 20.0

_POLL = 0.1

Handler = Callable[[Any], "Reply | ErrorReply"]


class _Answer(ResponseCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.message: Any = None

    def on_response(self, response: Any) -> None:
        self.message = response
        self.arrived.set()


class _Responder(RequestCallback):  # type: ignore[misc]
    """Hands requests to a handler and its answers to the fabric."""

    def __init__(self, client: Any, handler: Handler, broker: str) -> None:
        super().__init__()
        self._client = client
        self._handler = handler
        self._broker = broker

    def on_request(self, request: Any) -> None:
        with about_request(self._broker, request):
            self._answer(request)

    def _answer(self, request: Any) -> None:
        answer = self._handler(request)
        if isinstance(answer, Reply):
            response = Response(request)
            response.payload = answer.payload
        else:
            response = ErrorResponse(request, error_code=0, error_message=answer.text)
        response.other_fields = dict(answer.fields)
        self._client.send_response(response)


class _Attempt(threading.Thread):
    """Something that dxlclient takes long over and cannot be told to end."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__(name="txstore-attempt", daemon=True)
        self._action = action
        self._problem: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._action()
        except Exception as error:  # noqa: BLE001 - sockets', TLS's, MQTT's and dxlclient's own
            self._problem = error

    def wait(self, interrupted: Callable[[], bool], what: str, deadline: float = math.inf) -> None:
        """Wait for its end.

        :param interrupted: asked now and then; once true the wait ends before
        :param deadline: when it ends in any case, on the monotonic clock
        :raises NoConnectionError: it failed, or was still under way when the wait ended
        """
        while self.is_alive() and not interrupted():
            if time.monotonic() >= deadline:
                raise NoConnectionError(f"cannot {what}: it takes too long")
            self.join(_POLL)
        if self.is_alive():
            raise NoConnectionError(f"told to stop before it was possible to {what}")
        if isinstance(self._problem, NoConnectionError):
            raise self._problem
        if self._problem is not None:
            raise NoConnectionError(f"cannot {what}: {self._problem}") from self._problem

    def then(self, action: Callable[[], object]) -> None:
        """Do something after its end, whenever that comes."""

        def follow() -> None:
            self.join()
            action()

        threading.Thread(target=follow, name="txstore-after-attempt", daemon=True).start()


class Connection:
    """One connection to one broker of a fabric; once lost it stays lost.

    :param interrupted: asked now and then while connecting or registering; once true it is given up
    :param timeout: seconds that connecting may take; a broker that takes the connection and then
        says nothing would hold dxlclient for minutes
    :raises NoConnectionError: if no broker could be connected to
    """

    def __init__(
        self,
        config: Any,
        interrupted: Callable[[], bool] = bool,
        timeout: float = math.inf,
    ) -> None:
        deadline = time.monotonic() + timeout
        # Apart, since looking up a name may take long.
        _Attempt(lambda: check_reachable(config)).wait(
            interrupted, "connect to the fabric", deadline
        )
        self._client: Any = DxlClient(config)
        self._serves = False
        self._shared: list[str] = []
        self._mqtt = self._client._client
        # A segment and its answer are each written in two parts, and without this the second
        # waits for the other side's delayed acknowledgement of the first.
        self._mqtt.on_socket_open = _send_at_once
        self._interrupted = interrupted
        attempt = _Attempt(self._client.connect)
        try:
            attempt.wait(interrupted, "connect to the fabric", deadline)
        except FabricError:
            if attempt.is_alive():
                attempt.then(self._close)
            else:
                self.close()
            raise
        # What was left behind by a close that took too long would connect anew by itself, under
        # our client id, and answer requests.
        self._mqtt.reconnect = self._mqtt.disconnect

    @property
    def broker(self) -> str:
        """Host and port of the broker."""
        found = self._client.current_broker
        return "" if found is None else f"{found.host_name}:{found.port}"

    @property
    def connected(self) -> bool:
        """Whether the connection still stands."""
        return bool(self._client.connected)

    def request(
        self,
        topic: str,
        payload: bytes,
        fields: Mapping[str, str] | None = None,
        *,
        timeout: float,
        service_id: str = "",
        interrupted: Callable[[], bool] = bool,
    ) -> Any:
        """Send a request and wait for its answer (``.payload``, ``.other_fields``).

        :param timeout: seconds to wait
        :param service_id: the one instance of the service to ask; empty lets the broker choose
        :param interrupted: asked now and then; once true the wait ends
        :raises NoAnswerError: if the time, the connection or the caller's patience ended first
        :raises RemoteError: if the answer is an error
        :raises UnsendableTextError: if the request holds text that no message can carry
        """
        message = Request(topic)
        message.payload = payload
        message.other_fields = dict(fields or {})
        message.service_id = service_id
        answer = _Answer()
        deadline = time.monotonic() + timeout
        try:
            self._client.async_request(message, answer)
        except UnicodeEncodeError as error:
            raise UnsendableTextError(error.object) from error
        while not answer.arrived.wait(_POLL):
            if not self.connected:
                raise NoAnswerError("the connection to the fabric was lost")
            if time.monotonic() >= deadline:
                raise NoAnswerError(f"no answer within {round(timeout, 1):g} s")
            if interrupted():
                raise NoAnswerError("interrupted")
        response = answer.message
        if response.message_type == Message.MESSAGE_TYPE_ERROR:
            facts = response.other_fields
            raise RemoteError(
                response.error_message,
                code=response.error_code & 0xFFFFFFFF,
                kind=facts.get("error", ""),
                facts=facts,
            )
        return response

    def register(self, service_type: str, handlers: Mapping[str, Handler]) -> str:
        """Register a service with the fabric and answer its requests from now on.

        :return: the id of this instance of the service
        :raises NoConnectionError: if the fabric does not confirm it
        """
        self._serves = True
        service = ServiceRegistrationInfo(self._client, service_type)
        service.ttl = REGISTRATION_TTL
        for topic, handler in handlers.items():
            service.add_topic(topic, _Responder(self._client, handler, self.broker))
        attempt = _Attempt(lambda: self._client.register_service_sync(service, REGISTER_TIMEOUT))
        attempt.wait(self._interrupted, "register the service")
        return str(service.service_id)

    def share(self, group: str, handlers: Mapping[str, Handler]) -> None:
        """Answer requests in turn with all others of ``group``, on a plain MQTT broker.

        :raises NoConnectionError: if the broker does not confirm it
        """
        self._serves = True
        for topic, handler in handlers.items():
            responder = _Responder(self._client, handler, self.broker)
            self._client.add_request_callback(topic, responder)
        self._shared = [f"$share/{group}/{topic}" for topic in handlers]
        # A broker that says nothing is waited for, and for long.
        attempt = _Attempt(lambda: list(map(self._client.subscribe, self._shared)))
        attempt.wait(self._interrupted, "subscribe")

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Take no new requests, answer those that have come, and disconnect.

        :param timeout: seconds to wait at most
        :return: whether all of it was done
        """
        # To a broker that is gone without a word dxlclient says goodbye for minutes.
        closing = _Attempt(self._close)
        closing.join(timeout)
        if closing.is_alive():
            logger.warning("A connection did not close within %g s; leaving it behind.", timeout)
            self._mqtt.disconnect()
        return not closing.is_alive()

    def _close(self) -> None:
        try:
            if self._serves and self.connected:
                # The broker's acknowledgement comes after every request that it sent before, so
                # that what dxlclient then waits for is all there is.  (A registered service stays
                # subscribed until it is unregistered: the broker would send requests to nobody.)
                for topic in self._shared:
                    self._client.unsubscribe(topic)
                self._client.disconnect()
            else:
                # After a failed attempt dxlclient leaves its MQTT loop running, which would
                # connect one day, under our client id.
                self._mqtt.disconnect()
                self._mqtt.loop_stop()
        finally:
            self._client.destroy()


def _send_at_once(_client: object, _userdata: object, sock: Any) -> None:
    # A TLS socket passes this on; a websocket's wrapper has no such method.
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
