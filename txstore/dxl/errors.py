"""The errors of the fabric, which :mod:`txstore.errors` defines."""

from txstore.errors import (
    ConfigError,
    FabricError,
    FileChangedError,
    GaveUpError,
    InterruptedSendError,
    NoAnswerError,
    NoConnectionError,
    NotSentError,
    RemoteError,
    TransferCancelledError,
    UnsendableNameError,
    UnsendableTextError,
)

__all__ = [
    "ConfigError",
    "FabricError",
    "FileChangedError",
    "GaveUpError",
    "InterruptedSendError",
    "NoAnswerError",
    "NoConnectionError",
    "NotSentError",
    "RemoteError",
    "TransferCancelledError",
    "UnsendableNameError",
    "UnsendableTextError",
]
