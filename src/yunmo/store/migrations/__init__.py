"""Alembic migrations of the metadata; they run when a database is opened."""
