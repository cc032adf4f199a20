"""The names of a message's fields, where upstream's package has them too."""

from __future__ import annotations

from txstore.protocol.constants import FileStoreProp, FileStoreResultProp, HashType

__all__ = ["FileStoreProp", "FileStoreResultProp", "HashType"]
