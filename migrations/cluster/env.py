"""Alembic's entry for the journal in PostgreSQL: all revisions in one transaction.

txstore calls it by itself when it opens a journal that is older, or not there.  By hand, in this
folder::

    alembic -x journal=postgresql://... upgrade head
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from txstore.cluster.schema import metadata
from txstore.cluster.upgrade import upgrade_by_hand


def run(connection: sa.Connection) -> None:
    """Run the revisions inside the transaction that the connection is in."""
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


def journal() -> str:
    """The journal given on the command line."""
    try:
        return context.get_x_argument(as_dictionary=True)["journal"]
    except KeyError:
        raise SystemExit(
            "Say which store: alembic -x journal=postgresql://... upgrade head"
        ) from None


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    upgrade_by_hand(journal(), run)
