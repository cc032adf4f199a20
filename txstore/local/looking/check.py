"""Whether everything is right with a store of one machine, part by part."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from txstore.checks import Finding, finding
from txstore.errors import (
    JournalDamagedError,
    JournalLinkedError,
    LockTimeoutError,
    StoreMismatchError,
)
from txstore.local.files.folders import JOURNAL, MARKER
from txstore.local.files.places import is_staging_name
from txstore.local.journal.opening import ALL_COLUMNS
from txstore.local.looking.found import Found
from txstore.local.looking.look import Look
from txstore.local.looking.stored import StoredChecks
from txstore.local.looking.surroundings import Surroundings
from txstore.local.looking.transfers import TransferChecks
from txstore.protocol.names import HIDDEN

#: What SQLite says of an index alone.
_OF_AN_INDEX = re.compile(
    r"row \d+ missing from index |wrong # of entries in index |non-unique entry in index "
)
#: What keeps from looking any further.
_END = frozenset(["journal-missing", "journal-damaged", "folders-mismatched", "busy"])


def check(look: Look, *, deep: bool) -> Iterator[Finding]:
    """What is wrong with a store.

    :param deep: read all bytes, not only those of which nothing else tells
    :raises JournalVersionError: a newer txstore wrote the journal
    :raises JournalError: the journal cannot be read without writing
    """
    yield from Surroundings(look).findings()
    path = look.found.journal_path
    try:
        for one in _journal(look):
            yield one
            if one.kind in _END:
                return
        yield from TransferChecks(look, deep=deep).findings()
        yield from StoredChecks(look, deep=deep).findings()
    except JournalDamagedError as error:
        yield finding("journal-damaged", path=path, problem=error.what)
    except JournalLinkedError:
        return  # that it is linked was told; whose log it has nobody knows


def left_without_journal(found: Found) -> str | None:
    """What was left of a store whose journal is gone; ``None``: there is no store."""
    for name in (JOURNAL + "-wal", JOURNAL + "-shm"):
        if found.has(name):
            return name
    for folder in found.stagings.values():
        for name in found.disk.list_folder(folder):
            if is_staging_name(name):
                return name
    return None


def _journal(look: Look) -> Iterator[Finding]:
    found, path = look.found, look.found.journal_path
    links, left = look.locks.with_journal(
        look.deadline(), lambda: (found.links(JOURNAL), left_without_journal(found))
    )
    if links == 0:
        yield finding("journal-missing", path=path, left=left or "nothing")
        return
    if links > 1:
        yield finding("journal-linked", path=path)
    try:
        problems = look.reader.problems(look.deadline())
    except LockTimeoutError as error:
        yield finding("busy", subject=path, seconds=error.timeout)
        return
    of_an_index = [text for text in problems if _OF_AN_INDEX.match(text)]
    if len(of_an_index) < len(problems):
        [problem] = [text for text in problems if text not in of_an_index][:1]
        yield finding("journal-damaged", path=path, problem=problem, count=len(problems))
        return
    for select in ALL_COLUMNS:
        look.reader.read(select, {}, look.deadline())
    if of_an_index:
        yield finding("journal-index", path=path, problem=of_an_index[0], count=len(of_an_index))
    try:
        identity = look.records.identity(look.deadline())
        # Who makes a store, or opens a restored one, writes it with the lock held.
        marked = look.locks.with_journal(
            look.deadline(), lambda: found.check_marker(found.read_marker(), *identity)
        )
    except StoreMismatchError as error:
        yield finding("folders-mismatched", problem=str(error))
    else:
        if not marked:
            path = os.path.join(found.storage_dir, HIDDEN, MARKER)
            yield finding("marker-missing", path=path)
