from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yunmo.serving import log as module
from yunmo.serving.log import RequestLog

FACTS = {"request_id": "req_1", "method": "POST", "path": "/x", "endpoint": "pets", "status": 200, "ms": 1.25}


class Pipe:
    """A pipe whose reading end the test holds."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def drain(self) -> list[dict[str, Any]]:
        """Close the writing end, and return the lines of what was written."""
        os.close(self.writer)
        with open(self.reader, "rb") as file:
            return [json.loads(line) for line in file.read().splitlines()]


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_line_has_its_time_and_facts(pipe: Pipe) -> None:
    log = RequestLog("all", descriptor=pipe.writer)
    before = time.time()
    log.write(FACTS | {"path": "/ü", "odd": Path("p"), "none": None})
    log.close()
    [line] = pipe.drain()
    assert list(line)[:4] == ["time", "level", "logger", "message"]
    assert (line["level"], line["logger"], line["message"]) == ("info", "yunmo.request", "request")
    assert FACTS.keys() <= line.keys()
    assert (line["path"], line["odd"], line["ms"], line["none"]) == ("/ü", "p", 1.25, None)
    assert len(line["time"]) == len("2026-11-22T10:24:11.123Z")
    said = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(before))
    assert said <= line["time"] <= time.strftime("%Y-%m-%dT%H:%M:%S.999Z", time.gmtime())


def test_no_key_is_in_it(pipe: Pipe) -> None:
    log = RequestLog("all", descriptor=pipe.writer)
    log.write(FACTS | {"path": "/api/ym_abcdefgh_" + "s" * 43})
    log.close()
    [line] = pipe.drain()
    assert line["path"] == "/api/ym_[hidden]"


@pytest.mark.parametrize("path", ["/\ud800", "/\x00\n\r\u2028", '/"\\'])
def test_odd_text_is_one_line(pipe: Pipe, path: str) -> None:
    log = RequestLog("all", descriptor=pipe.writer)
    log.write(FACTS | {"path": path})
    log.close()
    [line] = pipe.drain()
    assert line["path"] == path


@pytest.mark.parametrize(
    ("keep", "kept"),
    [("all", ["good", "error", "gone", "status"]), ("errors", ["error", "gone", "status"]), ("off", [])],
)
def test_which_requests_are_kept(pipe: Pipe, keep: Any, kept: list[str]) -> None:
    log = RequestLog(keep, descriptor=pipe.writer)
    log.write(FACTS | {"request_id": "good"})
    log.write(FACTS | {"request_id": "error", "status": "not_found", "error": "not_found"})
    log.write(FACTS | {"request_id": "gone", "client_gone": True})
    log.write(FACTS | {"request_id": "status", "status": 404})
    log.close()
    assert [line["request_id"] for line in pipe.drain()] == kept


def test_lines_are_written_without_a_close(pipe: Pipe) -> None:
    log = RequestLog("all", descriptor=pipe.writer)
    with open(pipe.reader, "rb", closefd=False) as file:
        for number in range(3):  # each after the thread went to sleep over the one before
            log.write(FACTS | {"rows": number})
            assert json.loads(file.readline())["rows"] == number
    log.close()
    assert pipe.drain() == []


def test_a_reader_that_stops_holds_nobody_up_and_costs_lines_that_are_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 20_000)
    lost: list[int] = []
    log = RequestLog("all", descriptor=pipe.writer, dropped=lost.append)
    written = 0
    while sum(lost) < 500:  # nobody reads: the pipe takes 64 kB, then the log 20 kB, then nothing
        log.write(FACTS | {"rows": written})
        written += 1
        assert written < 100_000
    lines: list[dict[str, Any]] = []

    def read() -> None:
        with open(pipe.reader, "rb") as file:
            lines.extend(json.loads(line) for line in file)

    reader = threading.Thread(target=read)
    reader.start()
    wait(lambda: any("lines" in line for line in lines))
    log.write(FACTS | {"rows": written})
    log.close()
    os.close(pipe.writer)
    reader.join()
    numbers = [line["rows"] for line in lines if "rows" in line]
    said = [line for line in lines if "lines" in line]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == written
    assert sum(line["lines"] for line in said) == sum(lost) == written + 1 - len(numbers)
    assert said[0]["level"] == "warning"


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    os.close(pipe.reader)
    lost: list[int] = []
    log = RequestLog("all", descriptor=pipe.writer, dropped=lost.append)

    def told() -> bool:
        log.write(FACTS)
        return bool(lost)

    wait(told)
    log.close()
    os.close(pipe.writer)


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    lost: list[int] = []
    log = RequestLog("all", descriptor=descriptor, dropped=lost.append)

    def told() -> bool:
        log.write(FACTS)
        return bool(lost)

    wait(told)
    log.close()
    os.close(descriptor)


WRITER = """
import sys
from yunmo.serving.log import RequestLog
log = RequestLog("all")
for number in range(3000):
    log.write({"who": sys.argv[1], "rows": number, "path": "/" + "x" * (number % 700)})
log.close(60)
"""


def test_lines_of_several_processes_do_not_mix_in_one_pipe(pipe: Pipe) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, who], stderr=pipe.writer) for who in "ab"]
    lines: list[dict[str, Any]] = []

    def read() -> None:
        lines.extend(pipe.drain())

    reader = threading.Thread(target=read)
    reader.start()
    for writer in writers:
        assert writer.wait(60) == 0
    reader.join()
    for who in "ab":
        assert [line["rows"] for line in lines if line["who"] == who] == list(range(3000))
