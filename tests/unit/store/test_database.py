import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError

from yunmo.control.services.placement import Placement, placement
from yunmo.core.errors import Conflict
from yunmo.store.database import MIGRATIONS, Database
from yunmo.store.tables import CounterRow, EndpointRow, KeyRow, ProjectRow, Table


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'metadata.sqlite'}"


def test_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    with database.read() as session:
        assert [row.id for row in session.scalars(select(ProjectRow))] == ["default"]
    database.close()


def test_endpoints_of_an_older_yunmo_go_on_as_they_were(tmp_path: Path) -> None:
    engine = create_engine(url(tmp_path))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    version = (
        "INSERT INTO versions (id, project_id, created_at, model_id, version, digest, artefact, size, summary)"
        " VALUES (:id, 'default', 1.0, 'mdl_1', :version, 'sha256:0', 'sha256:0', 9, '{}')"
    )
    endpoint = (
        "INSERT INTO endpoints (id, project_id, created_at, updated_at, name, version_id, previous_id)"
        " VALUES ('ep_1', 'default', 1.0, 2.0, 'pets', 'ver_2', 'ver_1')"
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO models VALUES ('pets', 'mdl_1', 'default', 1.0)"))
        connection.execute(text(version), [{"id": f"ver_{number}", "version": number} for number in (1, 2)])
        connection.execute(text(endpoint))
    engine.dispose()
    database = Database(url(tmp_path))
    with database.read() as session:
        row = session.get_one(EndpointRow, "ep_1")
        assert placement(row) == Placement("ver_2", previous_id="ver_1")
        assert (row.name, row.created_at, row.updated_at) == ("pets", 1.0, 2.0)
    with pytest.raises(IntegrityError), database.write() as session:
        session.get_one(EndpointRow, "ep_1").canary_id = "ver_9"
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(
            EndpointRow(id="ep_2", project_id="default", created_at=0, updated_at=0, name="pets", version_id="ver_1")
        )
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    database.close()


def test_every_row_belongs_to_a_project() -> None:
    for name, table in Table.metadata.tables.items():
        assert name == "projects" or not table.c.project_id.nullable, name


def test_sqlite_is_durable_and_checks_references(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    with database.engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]
    row = KeyRow(
        id="key_1", project_id="nobody", created_at=0, name="n", prefix="p", hash="h", scopes=[], internal=False
    )
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(row)
    database.close()


def test_processes_that_open_at_once_migrate_once(tmp_path: Path) -> None:
    code = "import sys; from yunmo.store.database import Database; Database(sys.argv[1]).close()"
    processes = [subprocess.Popen([sys.executable, "-c", code, url(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_concurrent_writers_lose_no_update(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    with database.write() as session:
        session.add(CounterRow(project_id="default", name="n", value=0))

    def add() -> None:
        for _ in range(10):
            with database.write() as session:
                session.get_one(CounterRow, ("default", "n")).value += 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.get_one(CounterRow, ("default", "n")).value == 40
    database.close()


def test_an_error_keeps_nothing(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    with pytest.raises(ValueError, match="stop"):
        write_and_stop(database)
    with database.read() as session:
        assert session.get(CounterRow, ("default", "n")) is None
    database.close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    with database.engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    database.close()
    with pytest.raises(Conflict, match="newer Yunmo"):
        Database(url(tmp_path))


def write_and_stop(database: Database) -> None:
    with database.write() as session:
        session.add(CounterRow(project_id="default", name="n", value=1))
        session.flush()
        raise ValueError("stop")
