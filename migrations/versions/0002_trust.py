"""Trust: which boot wrote a row, and up to where its bytes are known to be durable.

Rows of revision 0001 say nothing of either.  They get no boot and no durable point, so that their
staged bytes are verified against the running hash before anything is built on them; and no
durable completion, so that an answer from one flushes the file first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("store", sa.Column("boot", sa.Text, nullable=False, server_default=""))
    op.add_column("store", sa.Column("boot_ticks", sa.Float, nullable=False, server_default="0"))

    op.add_column("transfer", sa.Column("boot", sa.Text, nullable=False, server_default=""))
    op.add_column("transfer", sa.Column("ticks", sa.Float, nullable=False, server_default="0"))
    op.add_column("transfer", sa.Column("written_boot", sa.Text, nullable=False, server_default=""))
    for name in ("durable_segments", "durable_offset", "durable_last_size"):
        op.add_column("transfer", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.add_column("transfer", sa.Column("durable_state", sa.LargeBinary))
    op.add_column("transfer", sa.Column("setbacks", sa.Integer, nullable=False, server_default="0"))

    op.add_column("completion", sa.Column("boot", sa.Text, nullable=False, server_default=""))
    op.add_column("completion", sa.Column("ticks", sa.Float, nullable=False, server_default="0"))
    op.add_column(
        "completion", sa.Column("durable", sa.Integer, nullable=False, server_default="0")
    )
