"""The answer to a message."""

from __future__ import annotations

from txstore.protocol.constants import FileStoreProp, FileStoreResultProp


class FileStoreSegmentResult:
    """The answer to a message: what is acknowledged.

    :param file_id: the transfer's id
    :param segments_received: number of segments received so far
    :param file_result: a member of ``FileStoreResultProp``
    """

    def __init__(
        self,
        file_id: str,
        segments_received: int,
        file_result: str | None = FileStoreResultProp.NONE,
    ) -> None:
        self._file_id = file_id
        self._segments_received = segments_received
        self._file_result = file_result

    @property
    def file_id(self) -> str:
        """The transfer's id."""
        return self._file_id

    @property
    def segments_received(self) -> int:
        """Number of segments received so far."""
        return self._segments_received

    @property
    def file_result(self) -> str | None:
        """What was done with the file as a whole, a member of ``FileStoreResultProp``; ``NONE``
        after a segment that was not the last."""
        return self._file_result

    def to_dict(self) -> dict[str, str | int]:
        """The answer as it travels: ``result`` only where there is one."""
        fields: dict[str, str | int] = {
            FileStoreProp.ID: self._file_id,
            FileStoreProp.SEGMENTS_RECEIVED: self._segments_received,
        }
        if self._file_result:
            fields[FileStoreProp.RESULT] = self._file_result
        return fields

    def __repr__(self) -> str:
        return f"FileStoreSegmentResult({self.to_dict()!r})"
