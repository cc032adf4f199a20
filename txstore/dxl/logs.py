"""Where a service logs, how its lines look, and what each tells besides its text.

Every record has the attributes ``worker``, ``broker``, ``client`` and ``transfer``, for formatters
in a ``logging.config`` too; ``None`` where there is no such thing.
"""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from txstore.dxl.config import ServiceConfig

#: What a record tells, in this order.
_FACTS = ("worker", "broker", "client", "transfer")


class _Context(NamedTuple):
    """What is done by a thread.

    :ivar broker: host and port of the broker that it is about
    :ivar client: id of the client whose request is answered
    :ivar transfer: id of the transfer that the request is about
    """

    broker: str | None = None
    client: str | None = None
    transfer: str | None = None


_NOTHING = _Context()
_context: ContextVar[_Context] = ContextVar("txstore_log")


@contextmanager
def about_broker(broker: str) -> Iterator[None]:
    """For the time of a ``with``, lines are about a connection to a broker."""
    token = _context.set(_Context(broker))
    try:
        yield
    finally:
        _context.reset(token)


@contextmanager
def about_request(broker: str, request: Any) -> Iterator[None]:
    """For the time of a ``with``, lines are about a request that came over a broker."""
    fields = request.other_fields
    transfer = fields.get("file_id") if isinstance(fields, Mapping) else None
    client = getattr(request, "source_client_id", None)
    if not client:  # a plain MQTT broker puts none in; its answers are addressed by it
        client = str(getattr(request, "reply_to_topic", "")).rpartition("/")[2]
    token = _context.set(_Context(broker, _text(client), _text(transfer)))
    try:
        yield
    finally:
        _context.reset(token)


def about_transfer(file_id: str) -> None:
    """From here on, lines are about a transfer that the request did not name."""
    _context.set(_context.get(_NOTHING)._replace(transfer=file_id))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


class Logs(NamedTuple):
    """How a process of a service logs.

    :ivar worker: number of the worker; ``None``: it is none, or the only one
    :ivar as_json: whether a line is a JSON object
    """

    worker: int | None = None
    as_json: bool = False

    def open(self, config: ServiceConfig) -> None:
        """Log as the folder's ``logging.config`` says, else to standard error.  Called again it
        opens the files anew.

        :raises ValueError: ``logging.config`` cannot work
        """
        logging.setLogRecordFactory(self._record)
        if config.logging_config is not None:
            try:
                logging.config.fileConfig(config.logging_config, disable_existing_loggers=False)
            except Exception as error:  # whatever the classes and expressions in it raise
                raise ValueError(f"{config.logging_config}: {error}") from error
            return
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter() if self.as_json else TextFormatter())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        # What matters of it is said by the service in its own words.
        logging.getLogger("dxlclient").setLevel(logging.CRITICAL)

    def _record(self, *args: Any, **options: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **options)
        for name, value in zip(_FACTS, (self.worker, *_context.get(_NOTHING)), strict=True):
            setattr(record, name, value)
        return record


class TextFormatter(logging.Formatter):
    """A line for people; at the end of its text what is known of worker, broker, client, transfer.

    For a ``logging.config``: ``class=txstore.dxl.logs.TextFormatter``.
    """

    def __init__(self, *_args: object, **_options: object) -> None:
        super().__init__("%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        text = super().formatMessage(record)
        known = {name: getattr(record, name, None) for name in _FACTS}
        told = [f"{name}={_plain(value)}" for name, value in known.items() if value is not None]
        return f"{text} [{' '.join(told)}]" if told else text


class JsonFormatter(logging.Formatter):
    """A line as a JSON object, always with the same keys: ``docs/operating.md`` describes them.

    For a ``logging.config``: ``class=txstore.dxl.logs.JsonFormatter``.
    """

    def __init__(self, *_args: object, **_options: object) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            **{name: getattr(record, name, None) for name in _FACTS},
            "message": record.getMessage(),
            "error": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps(line)


def _plain(value: object) -> str:
    """As it stands, unless it could be taken for something else: others choose it."""
    text = str(value)
    simple = text.isprintable() and text.isascii() and not set(text) & set(' "[]=')
    return text if simple else json.dumps(text)
