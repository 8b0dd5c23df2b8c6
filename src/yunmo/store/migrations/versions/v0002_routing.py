"""Endpoints split their traffic over versions, and have limits.

Revision: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a canary, a shadow, the time of the last switch, and limits; endpoints that exist go on as they were."""
    # The table is made anew on SQLite, which can't add a constraint to one that exists.
    with op.batch_alter_table("endpoints") as table:
        table.add_column(sa.Column("canary_id", sa.String(length=32), nullable=True))
        table.add_column(sa.Column("canary_weight", sa.Integer(), nullable=True))
        table.add_column(sa.Column("shadow_id", sa.String(length=32), nullable=True))
        table.add_column(sa.Column("switched_at", sa.Double(), nullable=True))
        table.add_column(sa.Column("sticky", sa.String(length=16), nullable=False, server_default="request"))
        table.add_column(sa.Column("concurrency", sa.Integer(), nullable=True))
        table.add_column(sa.Column("queue", sa.Integer(), nullable=True))
        table.add_column(sa.Column("timeout", sa.Double(), nullable=True))
        table.create_foreign_key("fk_endpoints_canary_id_versions", "versions", ["canary_id"], ["id"])
        table.create_foreign_key("fk_endpoints_shadow_id_versions", "versions", ["shadow_id"], ["id"])
