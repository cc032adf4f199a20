"""What the contract says of limits after a crash: none drops what was recorded, and none counts
what is gone."""

from __future__ import annotations

from crash.oracle import broken
from crash.steps import Message, Session
from txstore.errors import LimitError
from txstore.limits import Limits


def check_limits(session: Session, limits: Limits) -> None:
    """Fill a store that was just opened up to its limits, and empty it again.

    :raises PromiseBrokenError: more was taken than the limits let in, or less
    """
    most, most_bytes = limits.max_transfers, limits.max_unfinished_bytes
    assert most is not None
    assert most_bytes is not None
    found = session.manager().transfers()
    used, used_bytes = len(found), sum(one.bytes_received for one in found)
    if used > most or used_bytes > most_bytes:
        raise broken(5, f"{used} transfers of {most}, {used_bytes} bytes of {most_bytes}")
    begun = []
    for number in range(used, most + 1):
        # The first takes all bytes that are left.
        size = most_bytes - used_bytes if number == used else 0
        refused = _begin(session, f"more-{number}", size)
        if (refused is None) != (number < most):
            raise broken(5, f"with {number} of {most} transfers a new one was answered {refused}")
        if refused is None:
            begun.append(f"more-{number}")
        elif (refused.option, refused.used) != ("max_transfers", most):
            raise broken(5, f"{refused.option} is told, of which {refused.used} are used")
    if begun:
        refused = _begin(session, begun[-1], 1, number=2)
        if refused is None or refused.option != "max_unfinished_bytes":
            raise broken(5, f"a byte more than {most_bytes} was answered {refused}")
    for file_id in begun:
        session.manager().cancel(file_id)
    if session.manager().transfers() != found:
        raise broken(1, "a limit dropped what was recorded")


def _begin(session: Session, file_id: str, size: int, number: int = 1) -> LimitError | None:
    fields = {"file_id": file_id, "segment_number": str(number)}
    try:
        session.manager().store_segment(Message(bytes(size), fields))
    except LimitError as error:
        return error
    return None
