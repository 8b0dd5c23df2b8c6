from __future__ import annotations

import json
import logging

from yunmo.serving.log import JsonFormatter


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
