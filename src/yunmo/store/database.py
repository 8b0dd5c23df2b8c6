"""The metadata database: opening, migrating, transactions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from yunmo.core.errors import Conflict
from yunmo.core.files import storage_full
from yunmo.store.sqlite import is_full

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_MILLISECONDS = 30_000
_MIGRATION_LOCK = 0x59554E4D
"""Number of the advisory lock that holds other processes back while one migrates PostgreSQL."""


class Database:
    """Metadata on SQLite (``sqlite:///PATH``) or PostgreSQL (``postgresql+psycopg://…``).

    Opening brings the tables up to date.

    Raises:
        Conflict: the database was made by a newer Yunmo.
        StorageFull: no space left to make or migrate it.
    """

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            _prepare_sqlite(self.engine)
        with database_space(str(self.engine.url.database)):
            self._migrate()

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Give a session for reading; what is changed in it is not kept.

        Raises:
            StorageFull: no space left to open the database.
        """
        with (
            database_space(str(self.engine.url.database)),
            Session(self.engine, expire_on_commit=False) as session,
        ):
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """Give a session for writing: all of it is kept at the end, or nothing if an error ends it.

        On SQLite it holds the one write lock from its beginning, so that what was read in it stays true.

        Raises:
            StorageFull: no space left; nothing was kept.
        """
        with (
            database_space(str(self.engine.url.database)),
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @property
    def _writing(self) -> Engine:
        return self.engine.execution_options(yunmo_write=True)

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        with self.engine.connect() as connection:
            newest = ScriptDirectory.from_config(config).get_current_head()
            if MigrationContext.configure(connection).get_current_revision() == newest:
                return
        with self._writing.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise Conflict(
                    f"the metadata was made by a newer Yunmo ({error})",
                    where=self.engine.url.render_as_string(hide_password=True),
                    remedy="Upgrade Yunmo",
                ) from None


@contextlib.contextmanager
def database_space(where: str) -> Iterator[None]:
    """Turn a database's "no space left" into `StorageFull`.

    Args:
        where: the database, for the message.

    Raises:
        StorageFull: the body ran out of space.
    """
    try:
        yield
    except OperationalError as error:
        if is_full(error.orig) or "No space left" in str(error.orig):
            raise storage_full(where) from error
        raise


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        # The driver's own guesses about transactions are off; `_begin` says when they begin.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get("yunmo_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
