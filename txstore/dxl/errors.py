"""The errors of the fabric, which :mod:`txstore.errors` defines."""

from txstore.errors import (
    ConfigError,
    DamagedAnswerError,
    FabricError,
    FileChangedError,
    GaveUpError,
    GetRunningError,
    InterruptedSendError,
    NoAnswerError,
    NoConnectionError,
    NoFreeIdError,
    NotSentError,
    RemoteError,
    TransferCancelledError,
    UnsendableNameError,
    UnsendableTextError,
)

__all__ = [
    "ConfigError",
    "DamagedAnswerError",
    "FabricError",
    "FileChangedError",
    "GaveUpError",
    "GetRunningError",
    "InterruptedSendError",
    "NoAnswerError",
    "NoConnectionError",
    "NoFreeIdError",
    "NotSentError",
    "RemoteError",
    "TransferCancelledError",
    "UnsendableNameError",
    "UnsendableTextError",
]
