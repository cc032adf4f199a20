"""Locks that PostgreSQL holds for as long as a connection lives: of names, and of consumers.

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

_UNLOCK = sa.text("SELECT pg_advisory_unlock_all(), set_config('idle_session_timeout', '0', false)")
_IDLE = sa.text("SELECT set_config('idle_session_timeout', :idle, false)")


@contextmanager
def name(journal: Journal, path: str, deadline: Deadline) -> Iterator[sa.Connection]:
    """The turn to publish under a name, on a connection for the transactions that do it.

    Others who want the same name, a folder of it, or a name in it, wait.  PostgreSQL ends the turn
    of a worker that dies at once, and that of one that is paused after a third of the time that
    others wait.

    :raises LockTimeoutError: others had it for too long
    """
    shared = [journal.key("name", folder) for folder in folders_of(path)]
    # From the outermost on, as everybody does: so nobody waits in a circle.
    locks = [sa.func.pg_advisory_lock_shared(key) for key in shared]
    locks.append(sa.func.pg_advisory_lock(journal.key("name", path)))
    with journal.connected(deadline) as connection:
        try:
            idle = max(int(deadline.timeout * 1000 / 3), 200)
            with journal.within(connection, deadline) as at:
                at.run(_IDLE, {"idle": str(min(idle, 2**31 - 1))})
                at.run(sa.select(*locks))
            yield connection
            with journal.within(connection, deadline) as at:
                at.run(_UNLOCK)
        except BaseException:
            connection.invalidate()  # its locks go with it
            raise
