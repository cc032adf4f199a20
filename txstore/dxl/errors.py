"""What can go wrong between this program, the fabric and the service at its other end."""

from __future__ import annotations

from collections.abc import Mapping

from txstore.errors import TxStoreError


class FabricError(TxStoreError):
    """Root of the errors of :mod:`txstore.dxl`."""


class ConfigError(FabricError, ValueError):
    """The folder of configuration cannot work; found before anything is connected.

    :ivar path: the file or folder at fault
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class NoAnswerError(FabricError, TimeoutError):
    """A request was sent, or could not be; whether the service carried it out is not known."""


class RemoteError(FabricError):
    """The service, or the fabric in its stead, answered with an error.

    :ivar code: the numeric code of the DXL error response
    :ivar kind: what kind of error txstore's service says it is; empty where something else answered
    :ivar facts: the error's facts as the service sent them
    """

    def __init__(self, text: str, *, code: int, kind: str, facts: Mapping[str, str]) -> None:
        super().__init__(text)
        self.code = code
        self.kind = kind
        self.facts = dict(facts)


class GaveUpError(FabricError, TimeoutError):
    """Nothing went forward for as long as the sender may wait; what the store has stays there."""


class InterruptedSendError(FabricError):
    """The user asked to stop; what the store has stays there."""


class FileChangedError(FabricError, ValueError):
    """A file became another while it was on its way; nothing mixed was stored.

    :ivar name: the file
    :ivar file_id: id under which the store keeps what was sent of it; ``None`` where it does not
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name
        self.file_id: str | None = None


class UnsendableNameError(FabricError, ValueError):
    """A file's name is not UTF-8, and messages carry text; nothing was sent.

    :ivar name: the name
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the name {name!r} is not UTF-8 and cannot be sent: give another name to store it as"
        )
        self.name = name
