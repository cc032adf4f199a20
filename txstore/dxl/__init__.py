"""The store on a DXL fabric: a service, and clients that send files and get them back.

Importing this package does not import ``dxlclient`` (some 170 modules).  Using a class of it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from txstore.errors import (
    ConfigError,
    FabricError,
    FileChangedError,
    GaveUpError,
    InterruptedSendError,
    NoAnswerError,
    NoConnectionError,
    RemoteError,
    TransferCancelledError,
    UnsendableNameError,
)

if TYPE_CHECKING:
    from txstore.dxl.config import ServiceConfig
    from txstore.dxl.fetcher import FileFetcher
    from txstore.dxl.link import Link
    from txstore.dxl.sender import FileSender, SendProgress, SentFile
    from txstore.dxl.service import FileTransferService

_HOMES = {
    "FileFetcher": "fetcher",
    "FileSender": "sender",
    "FileTransferService": "service",
    "Link": "link",
    "SendProgress": "sender",
    "SentFile": "sender",
    "ServiceConfig": "config",
}

__all__ = [
    "ConfigError",
    "FabricError",
    "FileChangedError",
    "FileFetcher",
    "FileSender",
    "FileTransferService",
    "GaveUpError",
    "InterruptedSendError",
    "Link",
    "NoAnswerError",
    "NoConnectionError",
    "RemoteError",
    "SendProgress",
    "SentFile",
    "ServiceConfig",
    "TransferCancelledError",
    "UnsendableNameError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
