from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from yunmo.serving.log import JsonFormatter, log_to_file


def test_a_line_is_json_with_its_facts_and_no_key() -> None:
    record = logging.LogRecord("yunmo.x", logging.INFO, "f", 1, "said %s\nforged", ("ym_abcdefgh_" + "s" * 43,), None)
    record.facts = {"endpoint": "pets", "ms": 1.5}
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ssss" not in line
    document = json.loads(line)
    assert document["level"] == "info"
    assert document["endpoint"] == "pets"
    assert document["time"].endswith("Z")


def test_an_exception_is_in_the_line() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), (type(error), error, error.__traceback__))
    assert "ValueError: why" in json.loads(JsonFormatter().format(record))["exception"]


def test_a_log_in_a_file_takes_tracebacks_and_ends_with_its_block(tmp_path: Path) -> None:
    path, logger = tmp_path / "x.log", logging.getLogger("yunmo.test")
    handlers = list(logging.getLogger().handlers)
    with log_to_file(path):
        assert not path.exists()
        try:
            raise ValueError("inside")
        except ValueError:
            logger.exception("it failed")
    logger.error("later")
    [line] = path.read_text().splitlines()
    assert json.loads(line)["message"] == "it failed"
    assert "ValueError: inside" in json.loads(line)["exception"]
    assert logging.getLogger().handlers == handlers


def test_a_log_that_cannot_be_written_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full.log").symlink_to("/dev/full")
    with log_to_file(tmp_path / "full.log"):
        logging.getLogger("yunmo.test").error("lost")
    assert capsys.readouterr().err == ""
