"""Alembic's entry: runs the revisions on the journal's own connection, in one transaction.

txstore calls it by itself when it opens an older journal.  By hand, in this folder::

    alembic -x working_dir=/path/to/working_dir upgrade head

goes the same way: under the journal lock, all revisions and the version row in one transaction.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from txstore.local.journal.schema import metadata
from txstore.local.journal.upgrade import upgrade_by_hand


def run(connection: sa.Connection) -> None:
    """Run the revisions inside the transaction that the connection is in."""
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


def working_dir() -> str:
    """The working dir given on the command line."""
    try:
        return context.get_x_argument(as_dictionary=True)["working_dir"]
    except KeyError:
        raise SystemExit(
            "Say which store: alembic -x working_dir=/path/to/working_dir upgrade head"
        ) from None


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    upgrade_by_hand(working_dir(), run)
