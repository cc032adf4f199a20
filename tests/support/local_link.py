"""A link to a store without a broker: the fabric is a function call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from txstore import FileStoreManager
from txstore.dxl import InterruptedSendError, Link, NoAnswerError, RemoteError, ServiceConfig
from txstore.dxl.handlers import StoreHandlers
from txstore.dxl.protocol import ErrorReply, Reply, Topics


@dataclass
class Message:
    """What a handler is asked."""

    payload: bytes
    other_fields: dict[str, str]


Handler = Callable[[Any], "Reply | ErrorReply"]


class LocalLink(Link):
    """Asks the handlers of a store directly; ``faults`` says what happens to each request."""

    def __init__(self, storage: Path, faults: Iterator[str], options: dict[str, Any]) -> None:
        self.notices: list[str] = []
        self.answer_timeout = 1.0
        self.retry_for = 3600.0
        self.notice = self.notices.append
        self.stop = threading.Event()
        self._config = ServiceConfig(str(storage), str(storage), **options)
        self.faults = faults
        self._slowest = {}
        self.override: dict[str, Callable[[Handler, Message], Reply | ErrorReply]] = {}
        self._open()

    def _open(self) -> None:
        self.manager = FileStoreManager(
            self._config.storage_dir, durability="none", limits=self._config.limits
        )
        self._handlers = StoreHandlers(self.manager, self._config).by_topic()

    def serve_on(self, topic: str) -> None:
        """Answer on another topic of the store."""
        self._config = replace(self._config, topics=Topics(topic))
        self._handlers = StoreHandlers(self.manager, self._config).by_topic()

    def close(self) -> None:
        self.manager.close()

    def once(
        self,
        topic: str,
        payload: bytes,
        fields: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        assert timeout is None or timeout > 0
        fault = next(self.faults, "none")
        if fault == "restart":
            self.close()
            self._open()
        if fault == "stop":
            raise InterruptedSendError("stopped by the user")
        if fault == "lost request":
            raise NoAnswerError(fault)
        if fault == "unavailable":
            raise RemoteError(fault, code=0, kind=fault, facts={})
        message = Message(payload, dict(fields or {}))
        handler = self._handlers[topic]
        override = self.override.get(topic)
        answer = handler(message) if override is None else override(handler, message)
        if fault == "lost answer":
            raise NoAnswerError(fault)
        if isinstance(answer, ErrorReply):
            raise RemoteError(answer.text, code=0, kind=answer.fields["error"], facts=answer.fields)
        return Message(answer.payload, dict(answer.fields))


@contextmanager
def local(storage: Path, *faults: str, **options: Any) -> Iterator[LocalLink]:
    """A link to a store; ``options`` are those of the service's configuration."""
    with LocalLink(storage, iter(faults), options) as link:
        assert isinstance(link, LocalLink)
        yield link
