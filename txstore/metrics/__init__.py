"""What a store tells of its work as it goes: to Prometheus (``txstore.metrics.prometheus``), or to
anything else that has the methods of ``Metrics``.

A manager that nobody gave one tells nothing, and spends nothing on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal, ParamSpec, Protocol, TypeVar

from txstore.protocol.request import FileStoreSegmentResult, Message

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: What the time of a request goes to.  ``"lock"``: a wait for somebody else who holds a lock; where
#: nobody does there is none.  ``"write"``: bytes are handed over.  ``"flush"``: something is made
#: durable.  ``"journal"``: the journal is asked or told something.
Step = Literal["lock", "write", "flush", "journal"]


class Metrics(Protocol):
    """What hears of a store's work; a manager's ``metrics=``.

    Called by the thread that does the work, right after it and with locks held: it has to be quick,
    and safe to call from any thread.  What it raises is logged, and changes nothing.
    """

    def answered(self, outcome: str, size: int, seconds: float) -> None:
        """A message was answered.

        :param outcome: ``"segment"``, or how the transfer ended: ``"store"``, ``"cancel"``
        :param size: bytes that the message brought
        :param seconds: how long it took
        """
        ...

    def failed(self, error: BaseException, seconds: float) -> None:
        """A message was not answered but with an error.

        :param seconds: how long it took
        """
        ...

    def took(self, step: Step, seconds: float) -> None:
        """A step of some call was done, or failed.

        :param seconds: how long it took
        """
        ...


class Timed:
    """``with``: tell how long a step took, however it ended."""

    __slots__ = ("_began", "_metrics", "_step")

    def __init__(self, metrics: Metrics, step: Step) -> None:
        self._metrics, self._step = metrics, step

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        tell(self._metrics.took, self._step, time.perf_counter() - self._began)


def observed(
    metrics: Metrics, store: Callable[[Message], FileStoreSegmentResult], message: Message
) -> FileStoreSegmentResult:
    """Have a message stored, and tell how that went."""
    began = time.perf_counter()
    try:
        result = store(message)
    except BaseException as error:
        tell(metrics.failed, error, time.perf_counter() - began)
        raise
    payload = message.payload
    size = 0 if payload is None else memoryview(payload).nbytes
    outcome = result.file_result or "segment"
    tell(metrics.answered, outcome, size, time.perf_counter() - began)
    return result


def tell(hears: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a method of ``Metrics``.  What was acknowledged stays so, whatever that raises."""
    try:
        hears(*args, **kwargs)
    except Exception:
        logger.exception("Metrics could not be told")
