"""Locks that PostgreSQL holds for as long as a connection lives: of names, of consumers, and of the
worker who cleans up.

They keep workers from getting into each other's way, and so last longer than a transaction.  What
is right does not rest on them: see ``publish``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from txstore.cluster.journal import Journal
from txstore.cluster.keys import folders_of
from txstore.deadline import Deadline

#: Milliseconds that a worker may need between two statements, on a busy machine.
_LEAST_IDLE = 1000

_LEAVE = sa.text("SELECT pg_advisory_unlock_all(), set_config('idle_session_timeout', '0', false)")
_ENTER = sa.text("SELECT set_config('idle_session_timeout', :idle, false)")


@contextmanager
def name(journal: Journal, path: str, deadline: Deadline) -> Iterator[sa.Connection]:
    """The turn to publish under a name, on a connection for the transactions that do it.

    Others who want the same name, a folder of it, or a name in it, wait.  PostgreSQL ends the turn
    of a worker that dies at once, and that of one that is paused after a third of the time that
    others wait.

    :raises LockTimeoutError: others had it for too long
    """
    *folders, alone = _keys(journal, path)
    locks = [sa.func.pg_advisory_lock_shared(key) for key in folders]
    with _turn(journal, [*locks, sa.func.pg_advisory_lock(alone)], deadline) as (connection, _):
        yield connection


@contextmanager
def free_name(journal: Journal, path: str, deadline: Deadline) -> Iterator[sa.Connection | None]:
    """The same, not waiting; ``None``: somebody has it, and is alive."""
    *folders, alone = _keys(journal, path)
    locks = [sa.func.pg_try_advisory_lock_shared(key) for key in folders]
    locks.append(sa.func.pg_try_advisory_lock(alone))
    with _turn(journal, locks, deadline) as (connection, had):
        yield connection if all(had) else None


def _keys(journal: Journal, path: str) -> list[int]:
    """The locks of a name, from the outermost folder on, as everybody takes them: so nobody waits
    in a circle."""
    return [journal.key("name", one) for one in (*folders_of(path), path)]


@contextmanager
def cleaning(journal: Journal, deadline: Deadline) -> Iterator[bool]:
    """The turn to clean up; ``False``: another worker of this store has it."""
    lock = sa.func.pg_try_advisory_lock(journal.key("cleaning", ""))
    with _turn(journal, [lock], deadline) as (_, had):
        yield all(had)


@contextmanager
def _turn(
    journal: Journal, locks: list[sa.Function[bool]], deadline: Deadline
) -> Iterator[tuple[sa.Connection, list[bool]]]:
    with journal.connected(deadline) as connection:
        try:
            idle = max(int(deadline.timeout * 1000 / 3), _LEAST_IDLE)
            with journal.within(connection, deadline) as at:
                at.run(_ENTER, {"idle": str(min(idle, 2**31 - 1))})
                had = list(at.run(sa.select(*locks)).one())
            yield connection, had
            with journal.within(connection, deadline) as at:
                at.run(_LEAVE)
        except BaseException:
            connection.invalidate()  # its locks go with it
            raise
