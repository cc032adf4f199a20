"""A client's way to a service that outlives its connections: asks until it is answered."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from txstore.dxl.client_config import REACH_TIMEOUT, load_client_config
from txstore.dxl.fabric import Connection
from txstore.dxl.protocol import FABRIC_ERROR, ErrorKind
from txstore.errors import (
    FabricError,
    GaveUpError,
    InterruptedSendError,
    NoAnswerError,
    NotSentError,
    RemoteError,
)

logger = logging.getLogger(__name__)

#: Seconds: the first pause before a request is repeated, and the longest that pauses grow to.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 15.0

#: An answer counts as lost, for the first time, if it is so many times later than the slowest one
#: before it, but not before so many seconds.
MUCH_LATER = 10.0
SOONEST = 2.0


class Link:
    """A client's way to services on a fabric.  A lost connection is replaced by a new one.

    Not thread-safe: one thread uses it at a time.  :attr:`stop` may be set by any.

    :param config_dir: folder with ``dxlclient.config``
    :param answer_timeout: seconds to wait for one answer; no longer than ``retry_for``
    :param retry_for: seconds to go on while nothing is answered
    :param notice: called with a line of text when a request has to be repeated
    :raises ConfigError: the configuration cannot work
    """

    def __init__(
        self,
        config_dir: str | os.PathLike[str],
        *,
        answer_timeout: float = 20.0,
        retry_for: float = 600.0,
        notice: Callable[[str], None] = logger.info,
    ) -> None:
        self._config = load_client_config(config_dir)
        # Who has less patience than that does not wait for one answer longer than for all.
        self.answer_timeout = min(answer_timeout, max(REACH_TIMEOUT, retry_for))
        self.retry_for = retry_for
        self.notice = notice
        #: Once set, every wait ends with :class:`InterruptedSendError`.
        self.stop = threading.Event()
        self._connection: Connection | None = None
        self._slowest: dict[str, float] = {}

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def once(
        self,
        topic: str,
        payload: bytes,
        fields: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Ask one time.

        :param topic: where the service answers
        :param payload: the request's bytes
        :param fields: the request's fields
        :param timeout: seconds to wait, instead of ``answer_timeout``
        :return: the DXL response
        :raises NoAnswerError: there was no answer, for whatever reason
        :raises NotSentError: there was no connection; nobody got the request
        :raises RemoteError: the answer is an error
        :raises InterruptedSendError: :attr:`stop` is set
        """
        self._check_stop()
        if self._connection is not None and not self._connection.connected:
            self.close()
        try:
            if self._connection is None:
                patience = max(REACH_TIMEOUT, self.answer_timeout)
                self._connection = Connection(self._config, self.stop.is_set, patience)
        except FabricError as error:
            self._check_stop()
            raise NotSentError(str(error)) from error
        began = time.monotonic()
        try:
            answer = self._connection.request(
                topic,
                payload,
                fields,
                timeout=self.answer_timeout if timeout is None else timeout,
                interrupted=self.stop.is_set,
            )
        except NoAnswerError:
            self._check_stop()
            raise
        took = time.monotonic() - began
        self._slowest[topic] = max(took, self._slowest.get(topic, 0.0))
        return answer

    def first_timeout(self, topic: str) -> float:
        """Seconds after which a request is sent for the second time.

        A killed service never answers what it had at hand, and one that has not come back to the
        broker never hears of it.  Where answers take milliseconds it would be no use to wait long
        for one that is lost.  It does no harm if a request comes twice.
        """
        slowest = self._slowest.get(topic, max(self._slowest.values(), default=None))
        if slowest is None:
            return self.answer_timeout
        return min(self.answer_timeout, max(SOONEST, MUCH_LATER * slowest))

    def next_timeout(self, timeout: float, problem: NoAnswerError) -> float:
        """Seconds to wait for the same request after it got no answer within ``timeout``.

        Longer each time, since the service may have become slow.  But never the longest time at
        once: after an outage the service may come back later than the sender, and what was sent
        before went to nobody.
        """
        if isinstance(problem, NotSentError):
            return timeout
        return min(timeout * 2, self.answer_timeout)

    def ask(self, topic: str, payload: bytes, fields: Mapping[str, str] | None = None) -> Any:
        """Ask until there is an answer, with growing pauses.  The request is always the same.

        :param topic: where the service answers
        :param payload: the request's bytes
        :param fields: the request's fields
        :return: the DXL response
        :raises RemoteError: the answer is an error that repeating does not mend
        :raises GaveUpError: ``retry_for`` is over
        :raises InterruptedSendError: :attr:`stop` is set
        """
        patience = Patience(self)
        timeout = self.first_timeout(topic)
        while True:
            try:
                return self.once(topic, payload, fields, timeout=timeout)
            except NoAnswerError as error:
                timeout = self.next_timeout(timeout, error)
                patience.use(error)
            except RemoteError as error:
                if not is_temporary(error):
                    raise
                patience.use(error)

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise InterruptedSendError("stopped by the user")


class Patience:
    """How long to go on with something that fails, and how long to pause before the next try."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._deadline = time.monotonic() + link.retry_for
        self._pause = FIRST_PAUSE

    def use(self, problem: Exception) -> None:
        """Pause after a failed try.

        :raises GaveUpError: there is no patience left
        :raises InterruptedSendError: the link was stopped meanwhile
        """
        # Senders that failed together should not all come back at the same moment.
        pause = self._pause * random.uniform(0.75, 1.25)
        if time.monotonic() + pause > self._deadline:
            raise GaveUpError(
                f"nothing went forward for {self._link.retry_for:g} s; at last: {problem}"
            ) from problem
        self._link.notice(f"{problem}; trying again in {pause:.1f} s")
        if self._link.stop.wait(pause):
            raise InterruptedSendError("stopped by the user") from problem
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


def is_temporary(error: RemoteError) -> bool:
    """Whether the same request may have another answer later."""
    return bool(error.code & FABRIC_ERROR) or error.kind == ErrorKind.UNAVAILABLE
