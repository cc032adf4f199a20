"""A crash-safe store for files that arrive in segments.

``FileStoreManager`` is all that most programs need.  Its names are loaded when they are used first:
the journal's libraries take a moment to import, in which the command could not see to Ctrl-C.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txstore.protocol.catalogue import CatalogueEntry
    from txstore.protocol.constants import FileStoreProp, FileStoreResultProp, HashType
    from txstore.protocol.event import Consumer, Event
    from txstore.protocol.status import Totals, TransferStatus
    from txstore.store import FileStoreManager, FileStoreSegmentResult

__version__ = "0.1.0"

_HOMES = {
    "CatalogueEntry": "protocol.catalogue",
    "Consumer": "protocol.event",
    "Event": "protocol.event",
    "FileStoreManager": "store",
    "FileStoreProp": "constants",
    "FileStoreResultProp": "constants",
    "FileStoreSegmentResult": "store",
    "HashType": "constants",
    "Totals": "protocol.status",
    "TransferStatus": "protocol.status",
}

__all__ = [
    "CatalogueEntry",
    "Consumer",
    "Event",
    "FileStoreManager",
    "FileStoreProp",
    "FileStoreResultProp",
    "FileStoreSegmentResult",
    "HashType",
    "Totals",
    "TransferStatus",
]


def __getattr__(name: str) -> Any:
    if name in {"constants", "errors", "store"}:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
