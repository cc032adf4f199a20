"""One message put to a store, and one look at its storage, against what the contract says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from txstore.constants import FileStoreProp
from txstore.testing.messages import Message, Store
from txstore.testing.model import Answer, Expected, Refusal, State

#: Folders below the storage dir in which a store keeps what is its own.
STORES_OWN = (".txstore", ".workdir")


class ContractBrokenError(AssertionError):
    """A store did what the contract excludes.

    :ivar promise: which part of the contract, in words
    """

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


def ask(store: Store, message: Message, expected: Expected, *others: Expected) -> Any:
    """Put a message to a store.

    :param expected: what it must be answered
    :param others: what it may be answered as well
    :return: the answer; ``None`` where it was refused, as it may be
    :raises ContractBrokenError: the store did otherwise
    :raises OSError: the store's disk failed
    """
    allowed = (expected, *others)
    try:
        answer = store.store_segment(message)
    except ValueError as error:
        if not any(_is_refused_so(error, one) for one in allowed):
            raise _broken(expected, message, f"was refused: {error}") from error
        return None
    except OSError:
        raise
    except Exception as error:
        raise _broken(expected, message, f"raised {error!r}") from error
    told = _told(answer)
    wanted = [_wanted(one, answer) for one in allowed if isinstance(one, Answer)]
    if told not in wanted or dict(answer.to_dict()) != told:
        raise _broken(expected, message, f"was answered {told}")
    return answer


def _is_refused_so(error: ValueError, expected: Expected) -> bool:
    if not isinstance(expected, Refusal):
        return False
    # Stores may tell which segment they wait for; then it has to be right.
    return expected.expected is None or expected.expected == getattr(
        error, "expected", expected.expected
    )


def _broken(expected: Expected, message: Message, what: str) -> ContractBrokenError:
    if isinstance(expected, Refusal):
        promise = f"a message must be refused where {expected.why}"
    elif expected.repeated:
        promise = "a message that comes again must get the same answer"
    else:
        promise = f"a message must be answered {_wanted(expected, None)}"
    return ContractBrokenError(promise, f"{_short(message)} {what}")


def _wanted(expected: Answer, answer: Any) -> dict[str, Any]:
    assigned = getattr(answer, "file_id", None) or "an id"
    wanted = {
        FileStoreProp.ID: assigned if expected.file_id is None else expected.file_id,
        FileStoreProp.SEGMENTS_RECEIVED: expected.segments_received,
    }
    if expected.file_result is not None:
        wanted[FileStoreProp.RESULT] = expected.file_result
    return wanted


def _told(answer: Any) -> dict[str, Any]:
    told = {
        FileStoreProp.ID: answer.file_id,
        FileStoreProp.SEGMENTS_RECEIVED: answer.segments_received,
    }
    if answer.file_result:
        told[FileStoreProp.RESULT] = answer.file_result
    return told


def _short(message: Message) -> str:
    return f"a message with {message.other_fields!r:.300} and payload {message.payload!r:.60}"


class Seen(NamedTuple):
    """What a reader of a storage sees.

    :ivar files: path -> content
    :ivar folders: paths
    """

    files: Mapping[str, bytes]
    folders: Set[str]


def check_storage(storage_dir: Path, *states: State) -> None:
    """Look at what any reader of the storage sees, with no call under way.

    :param states: the files are those of one; folders may be there for the files of any
    :raises ContractBrokenError: it is none of them
    """
    check_seen(look(storage_dir), *states)


def check_seen(seen: Seen, *states: State) -> None:
    """The same, for what was seen."""
    files, folders = seen
    possible = frozenset[str]().union(*(state.folders() for state in states))
    for state in states:
        if files == state.files and state.folders() <= folders <= possible:
            return
    raise ContractBrokenError(
        "the storage holds whole files only, and those that were stored",
        f"{_sizes(files)} and folders {sorted(folders)} are there instead of "
        + " or ".join(f"{_sizes(one.files)} and {sorted(one.folders())}" for one in states),
    )


def check_events(store: Any, state: State) -> None:
    """Read all events of a store.

    :raises ContractBrokenError: they are not what became of its transfers, in order
    """
    events = list(store.events())
    told = [(event.sequence, event.kind, event.file_id, event.name, event.size) for event in events]
    wanted = [
        (number, "cancelled" if one.path is None else "stored", one.file_id, one.path, one.size)
        for number, one in enumerate(state.ended, 1)
    ]
    if told != wanted:
        raise ContractBrokenError(
            "each transfer that ends has one event, in order", f"{told} are told, not {wanted}"
        )


def check_catalogue(store: Any, state: State) -> None:
    """Read the catalogue of a store.

    :raises ContractBrokenError: it is not what is stored
    """
    told = [(one.name, one.size, one.sha256) for one in store.catalogue()]
    wanted = [
        (name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in state.files.items()
    ]
    if sorted(told) != sorted(wanted):
        raise ContractBrokenError(
            "the catalogue has each stored file as it is", f"{told} are told, not {wanted}"
        )


def look(storage_dir: Path) -> Seen:
    """What a reader of a storage dir sees now."""
    files: dict[str, bytes] = {}
    found: set[str] = set()
    for top, folders, names in os.walk(storage_dir):
        here = Path(top)
        if here == storage_dir:
            folders[:] = [name for name in folders if name not in STORES_OWN]
        found.update(str((here / name).relative_to(storage_dir)) for name in folders)
        for name in names:
            files[str((here / name).relative_to(storage_dir))] = (here / name).read_bytes()
    return Seen(files, found)


def _sizes(files: Mapping[str, bytes]) -> str:
    return str({path: f"{len(content)} bytes" for path, content in sorted(files.items())})
