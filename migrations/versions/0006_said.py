"""Said: what a transfer's first segment said of the file, for whoever looks at the list.

Of transfers that began before nothing is known.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transfer", sa.Column("said_path", sa.LargeBinary))
    op.add_column("transfer", sa.Column("said_size", sa.Integer))
