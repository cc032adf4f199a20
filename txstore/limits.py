"""What a store takes at most.  A limit refuses new work; it never drops what was recorded."""

from __future__ import annotations

from dataclasses import dataclass

from txstore.errors import LimitError, OptionError
from txstore.protocol.request import SegmentRequest


@dataclass(frozen=True)
class Limits:
    """The limits of a store.

    :ivar max_file_size: bytes that a file may have; ``None``: any number
    :raises OptionError: a limit is no whole number from 0 (a ``ValueError``)
    """

    max_file_size: int | None = None

    def __post_init__(self) -> None:
        value = self.max_file_size
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 0
        ):
            raise OptionError(
                f"max_file_size must be a whole number from 0, or None, not {value!r}.",
                option="max_file_size",
                received=value,
            )

    def refusal(self, request: SegmentRequest, received: int) -> LimitError | None:
        """The error for a segment that is next in turn, if its file is or becomes too large.

        Called with the transfer's lock held, from before ``received`` was read until the segment
        is recorded: two senders of one transfer cannot both pass with the last bytes free.

        :param request: the segment
        :param received: bytes that the transfer has
        :return: ``None``: it may be taken
        """
        most = self.max_file_size
        wanted = max(received + len(request.payload), request.size or 0)
        if most is None or wanted <= most:
            return None
        what = "The file" if request.name is None else f"The file {request.name!r:.100}"
        if request.given_id is not None:
            what += f" with id {request.given_id!r}"
        return LimitError(
            f"{what} is refused: files of at most {most} bytes are taken, and it has"
            f" {wanted} or more.",
            option="max_file_size",
            limit=most,
            used=received,
            wanted=wanted,
            file_id=request.given_id,
        )
