"""txstore: a crash-safe transactional store for files that arrive in segments."""

from txstore.constants import FileStoreProp, FileStoreResultProp, HashType
from txstore.status import TransferStatus
from txstore.store import FileStoreManager, FileStoreSegmentResult

__all__ = [
    "FileStoreManager",
    "FileStoreProp",
    "FileStoreResultProp",
    "FileStoreSegmentResult",
    "HashType",
    "TransferStatus",
]
