"""How Alembic runs here: within the transaction that `yunmo.store.database` has begun."""

from alembic import context

from yunmo.store.tables import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata)
context.run_migrations()
