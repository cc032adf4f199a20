"""Where the two servers are: URLs as the libraries' users write them, with no secret shown.

Needs neither library, so that the façade can tell a cluster from two folders.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from txstore.errors import OptionError
from txstore.sizes import parse_size

_STORAGE, _JOURNAL = "s3", ("postgresql", "postgres", "postgresql+psycopg")
#: What an object store takes as a part of a larger object.
_LEAST_PART, _MOST_PART = 5 * 1024**2, 1024**3


class ServerURL(os.PathLike[str]):
    """A URL that may hold a password: it is shown without."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __fspath__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"ServerURL({without_secrets(self._url)!r})"


@dataclass(frozen=True)
class Bucket:
    """Where objects are.

    :ivar url: the URL, for people and other processes; it holds no secret
    :ivar name: of the bucket
    :ivar prefix: what all keys begin with; empty, or ends with a slash
    :ivar client: arguments for the client: ``endpoint_url``, ``region_name``
    :ivar profile: of the user's configuration; ``None``: the default one
    :ivar part_size: bytes of the tail from which it is made a part
    """

    url: str
    name: str
    prefix: str
    client: dict[str, str]
    profile: str | None
    part_size: int


def is_cluster(storage: str | os.PathLike[str], journal: str | os.PathLike[str] | None) -> bool:
    """Whether a store is one of a cluster.

    :raises OptionError: only one of the two is a URL
    """
    remote = [
        _scheme(storage) == _STORAGE,
        journal is not None and _scheme(journal) in _JOURNAL,
    ]
    if remote[0] == remote[1]:
        return remote[0]
    option = "storage_dir" if remote[1] else "working_dir"
    raise OptionError(
        "Files in an object store ('s3://bucket/prefix') and a journal in PostgreSQL"
        f" ('postgresql://...') go together: {option} is none of them.",
        option=option,
        received=None,  # it may hold a password
    )


def _scheme(address: str | os.PathLike[str]) -> str:
    text = os.fspath(address)
    return text.partition("://")[0] if isinstance(text, str) and "://" in text else ""


def read_bucket(address: str | os.PathLike[str]) -> Bucket:
    """Where objects are, from ``s3://bucket/prefix?endpoint_url=...``.

    :raises OptionError: it is no such URL
    """
    parts = urlsplit(os.fspath(address))
    if "@" in parts.netloc:
        _refuse("Credentials do not belong into its URL: give them as boto3 takes them.")
    if not parts.netloc or parts.fragment or ":" in parts.netloc:
        _refuse("It must be 's3://bucket/prefix', perhaps with '?endpoint_url=https://...'.")
    query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    ours: tuple[str, ...] = ("endpoint_url", "region_name")
    client = {key: query.pop(key) for key in ours if key in query}
    profile = query.pop("profile", None)
    part_size = _part_size(query.pop("part_size", "8MiB"))
    if query:
        _refuse(f"It cannot have {', '.join(sorted(query))}.")
    if "@" in client.get("endpoint_url", ""):
        _refuse("Credentials do not belong into its URL: give them as boto3 takes them.")
    prefix = parts.path.strip("/")
    if any(one in ("", ".", "..") for one in prefix.split("/")) and prefix:
        _refuse("Its prefix must not have empty parts, '.' or '..'.")
    url = urlunsplit(("s3", parts.netloc, f"/{prefix}" if prefix else "", parts.query, ""))
    return Bucket(url, parts.netloc, f"{prefix}/" if prefix else "", client, profile, part_size)


def _part_size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError:
        size = 0
    if not _LEAST_PART <= size <= _MOST_PART:
        _refuse("Its part_size must be from 5MiB to 1GiB.")
    return size


def _refuse(text: str) -> None:
    raise OptionError(f"storage_dir: {text}", option="storage_dir", received=None)


def without_secrets(url: str) -> str:
    """A URL of PostgreSQL as it may be shown."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    query = [(key, "***" if "pass" in key else value) for key, value in parse_qsl(parts.query)]
    netloc = user.partition(":")[0] + at + host
    return urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="/:,"), ""))
