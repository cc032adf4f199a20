"""The service's folder of configuration: upstream's two files, with options added.

``dxlclient.config`` says how to reach the fabric, ``dxlfiletransferservice.config`` what to serve,
an optional ``logging.config`` how to log.  A folder made for upstream's service works as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from configparser import ConfigParser
from configparser import Error as ConfigSyntaxError
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast, get_args

from txstore.dxl.protocol import STORE_TOPIC, Topics, checked_topic
from txstore.errors import ConfigError
from txstore.events.handing import web_address
from txstore.limits import Limits
from txstore.options import Level, OnExists
from txstore.sizes import parse_duration, parse_size, parse_size_or_share

SERVICE_CONFIG = "dxlfiletransferservice.config"
LOGGING_CONFIG = "logging.config"

_GENERAL = "General"
_POOL = "IncomingMessagePool"
_EVENTS = "Events"


_Value = TypeVar("_Value")


@dataclass(frozen=True)
class ServiceConfig:
    """What a service serves.

    :ivar config_dir: the folder it was read from
    :ivar storage_dir: where files are stored, absolute; or a URL
    :ivar working_dir: where unfinished transfers are kept; ``None`` for the store's default.  A
        URL with the other one
    :ivar topics: the topics it answers on
    :ivar durability: level of the store
    :ivar expire_after: seconds without activity after which a transfer is dropped
    :ivar keep_completed: seconds for which last messages are answered again
    :ivar lock_timeout: seconds that one request may wait for others
    :ivar allow_network_fs: whether to serve from a network file system
    :ivar mode: permission bits of the store's own files
    :ivar limits: what the store takes at most
    :ivar on_exists: what becomes of a file whose name is taken
    :ivar keep_events: seconds for which an event is kept
    :ivar max_events: how many events are kept at most
    :ivar catalogue: whether what is known of stored files is kept as long as they are there
    :ivar auto_migrate: whether an older journal is upgraded
    :ivar events_exec: a shell's command that gets each event
    :ivar events_webhook: a web address that each event is posted to
    :ivar events_secret_file: a file with the secret that signs what is posted
    :ivar share_group: on a plain MQTT broker, the group that takes requests in turn; ``None`` on a
        DXL fabric, whose brokers see to that
    :ivar threads: threads that answer requests
    :ivar queue_size: requests that may wait for a thread; 0 for any number
    :ivar ignored: what of the file is not used, and why
    """

    config_dir: str
    storage_dir: str
    working_dir: str | None = field(default=None, repr=False)  # a URL may hold a password
    topics: Topics = field(default_factory=Topics)
    durability: Level = "segment"
    expire_after: float = 7 * 86400
    keep_completed: float = 86400
    lock_timeout: float = 30.0
    allow_network_fs: bool = False
    mode: int = 0o600
    limits: Limits = field(default_factory=Limits)
    on_exists: OnExists = "replace"
    keep_events: float = 7 * 86400
    max_events: int = 1_000_000
    catalogue: bool = True
    auto_migrate: bool = True
    events_exec: str | None = None
    events_webhook: str | None = None
    events_secret_file: str | None = None
    share_group: str | None = None
    threads: int = 10
    queue_size: int = 1000
    ignored: tuple[str, ...] = ()

    @classmethod
    def load(cls, config_dir: str | os.PathLike[str]) -> ServiceConfig:
        """Read a folder of configuration.  Relative paths count from the current folder.

        :raises ConfigError: if it cannot work, with the option at fault
        """
        folder = os.path.abspath(os.fspath(config_dir))
        path = os.path.join(folder, SERVICE_CONFIG)
        parser = ConfigParser()
        try:
            with open(path, encoding="utf-8") as file:
                parser.read_file(file)
        except (OSError, UnicodeDecodeError, ConfigSyntaxError) as error:
            raise ConfigError(path, f"cannot be read: {error}") from error
        options = _Options(parser, path)
        storage_dir = options.optional("storageDir", str, raw=True)  # a URL has percent signs
        if storage_dir is None:
            raise ConfigError(path, f"[{_GENERAL}] storageDir is missing: say where to store files")
        working_dir = options.optional("workingDir", str, raw=True)
        read = cls(
            config_dir=folder,
            storage_dir=_place(storage_dir),
            working_dir=None if working_dir is None else _place(working_dir),
            topics=Topics(options.get("storeTopic", checked_topic, STORE_TOPIC)),
            durability=options.get("durability", _level, cls.durability),
            expire_after=options.get("expireAfter", parse_duration, cls.expire_after),
            keep_completed=options.get("keepCompleted", parse_duration, cls.keep_completed),
            lock_timeout=options.get("lockTimeout", parse_duration, cls.lock_timeout),
            allow_network_fs=options.get("allowNetworkFs", _flag, cls.allow_network_fs),
            mode=options.get("mode", _mode, cls.mode),
            limits=Limits(
                max_file_size=options.optional("maxFileSize", parse_size),
                max_transfers=options.optional("maxTransfers", _positive),
                max_unfinished_bytes=options.optional("maxUnfinishedBytes", parse_size),
                min_free=options.optional("minFree", parse_size_or_share, raw=True),
            ),
            on_exists=options.get("onExists", _policy, cls.on_exists),
            keep_events=options.get("keepEvents", parse_duration, cls.keep_events),
            max_events=options.get("maxEvents", _positive, cls.max_events),
            catalogue=options.get("catalogue", _flag, cls.catalogue),
            auto_migrate=options.get("autoMigrate", _flag, cls.auto_migrate),
            events_exec=options.optional("exec", str, _EVENTS, raw=True),
            events_webhook=options.optional("webhook", web_address, _EVENTS, raw=True),
            events_secret_file=options.optional("secretFile", os.path.abspath, _EVENTS),
            share_group=options.optional("shareGroup", _group),
            threads=options.pool_number("threadCount", cls.threads),
            queue_size=max(options.pool_number("queueSize", cls.queue_size), 0),
        )
        if read.threads < 1:
            problem = f"should be a whole number from 1, but is {read.threads}"
            raise ConfigError(path, f"[{_POOL}] threadCount: {problem}")
        try:
            read.webhook_secret()
        except (OSError, ValueError) as error:
            raise ConfigError(path, f"[{_EVENTS}] secretFile: {error}") from error
        return replace(read, ignored=options.ignored())

    @property
    def path(self) -> str:
        """Path of the file that the options stand in."""
        return os.path.join(self.config_dir, SERVICE_CONFIG)

    def webhook_secret(self) -> bytes | None:
        """What signs the events that are posted, without space around it; ``None``: nothing does.

        :raises OSError: its file cannot be read
        :raises ValueError: it is empty
        """
        if self.events_secret_file is None:
            return None
        with open(self.events_secret_file, "rb") as file:
            secret = file.read().strip()
        if not secret:
            raise ValueError(f"{self.events_secret_file!r} is empty")
        return secret

    @property
    def logging_config(self) -> str | None:
        """Path of the folder's ``logging.config``, ``None`` where there is none to read."""
        path = os.path.join(self.config_dir, LOGGING_CONFIG)
        return path if os.access(path, os.R_OK) else None


class _Options:
    def __init__(self, parser: ConfigParser, path: str) -> None:
        self._parser = parser
        self._path = path
        self._read: set[tuple[str, str]] = set()
        self._passed_over: list[str] = []

    def get(
        self, option: str, read: Callable[[str], _Value], default: _Value, section: str = _GENERAL
    ) -> _Value:
        value = self.optional(option, read, section)
        return default if value is None else value

    def optional(
        self,
        option: str,
        read: Callable[[str], _Value],
        section: str = _GENERAL,
        *,
        raw: bool = False,
    ) -> _Value | None:
        """The option's value; ``None`` if it is missing or empty.

        :param raw: a percent sign is one, and refers to no other option
        """
        self._read.add((section, option.lower()))
        try:
            text = self._parser.get(section, option, fallback="", raw=raw).strip()
            return read(text) if text else None
        except (ValueError, ConfigSyntaxError) as error:
            raise ConfigError(self._path, f"[{section}] {option}: {error}") from error

    def pool_number(self, option: str, default: int) -> int:
        """A number of the pool; as with upstream, what is no number is the default."""
        try:
            return self.get(option, _whole, default, _POOL)
        except ConfigError as error:
            self._passed_over.append(str(error))
            return default

    def ignored(self) -> tuple[str, ...]:
        """What was passed over, and the options that nobody asked for.

        Upstream has none besides, so they are mistakes.
        """
        return (
            *self._passed_over,
            *(
                f"{self._path}: [{section}] {option}: no such option"
                for section in (_GENERAL, _POOL, _EVENTS)
                if self._parser.has_section(section)
                for option in self._parser.options(section)
                if (section, option) not in self._read
            ),
        )


def _place(text: str) -> str:
    """A folder, absolute, or the URL of a server."""
    return text if "://" in text else os.path.abspath(text)


def _level(text: str) -> Level:
    for level in get_args(Level):
        if text == level:
            return cast(Level, level)
    raise ValueError(f"should be segment, file or none, but is {text!r}")


def _policy(text: str) -> OnExists:
    for policy in get_args(OnExists):
        if text == policy:
            return cast(OnExists, policy)
    raise ValueError(f"should be replace or refuse, but is {text!r}")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"should be a whole number from 1, but is {text!r}")
    return int(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"should be a whole number, but is {text!r:.100}") from error


def _flag(text: str) -> bool:
    if text.lower() not in ConfigParser.BOOLEAN_STATES:
        raise ValueError(f"should be yes or no, but is {text!r}")
    return ConfigParser.BOOLEAN_STATES[text.lower()]


def _mode(text: str) -> int:
    if not re.fullmatch(r"(0o)?[0-7]{3,4}", text):
        raise ValueError(f"should be permission bits such as 0600 or 0660, but is {text!r}")
    return int(text.removeprefix("0o"), 8)


def _group(text: str) -> str:
    if set(text) & set("/#+\0"):
        raise ValueError(f"should be a name without / # +, but is {text!r}")
    return text
