"""Rollouts under load: no request is lost, and every answer belongs to its own request."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.harness import Workers

from yunmo.inference.predictor import Predictor

PATH = "/api/v1/endpoints/table/predict"


class Load:
    """Callers that never pause. Each request holds numbers of its own; the answer must be those numbers' answer."""

    def __init__(self, workers: Workers, expected: dict[int, float], *, callers: int = 6) -> None:
        self._workers = workers
        self._expected = expected
        self._stop = threading.Event()
        self.answers = 0
        self.labels: set[str] = set()
        self.failures: list[str] = []
        self._guard = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(seed,)) for seed in range(callers)]
        self._threads.append(threading.Thread(target=self._abort))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 (the load may be guessed)
        ages = list(self._expected)
        connection = self._workers.http()
        while not self._stop.is_set():
            chosen = dice.sample(ages, dice.choice((1, 1, 1, 2, 5)))
            problem = self._ask(connection, chosen)
            if problem:
                with self._guard:
                    self.failures.append(problem)
                connection.close()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, ages: list[int]) -> str | None:
        body = json.dumps([{"age": age, "city": "Berlin"} for age in ages])
        try:
            connection.request("POST", PATH, body, {**self._workers.headers, "content-type": "application/json"})
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        if reply.status != 200:
            return f"{reply.status} {data!r}"
        predictions = json.loads(data)["predictions"]
        for age, prediction in zip(ages, predictions, strict=True):
            if prediction["price"]["value"] != pytest.approx(self._expected[age], rel=1e-4, abs=1e-4):
                return f"{age} was answered with another's answer: {prediction}"
        with self._guard:
            self.answers += len(ages)
            self.labels.update(each["label"]["value"] for each in predictions)
        return None

    def _abort(self) -> None:
        """Send requests and leave before the answer."""
        body = b'{"age": 1, "city": "Berlin"}'
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._workers.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        while not self._stop.wait(0.01):
            with contextlib.suppress(OSError), self._workers.connect() as connection:
                connection.sendall(head.encode() + body)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    with Workers(tmp_path / "home", count=2) as workers:
        workers.deploy("table", workers.bundle("cat", always="cat"))
        workers.apply()
        yield workers


def expected_prices(workers: Workers) -> dict[int, float]:
    folder = Path(workers.deployments["table"].path)
    predictor = Predictor.open(folder, public_key_pem=workers.public)
    ages = list(range(0, 6000, 3))
    rows = [{"age": age, "city": "Berlin"} for age in ages]
    return {age: each["price"]["value"] for age, each in zip(ages, predictor.predict(rows), strict=True)}


def test_rollouts_good_bad_and_back_lose_and_mix_up_nothing(workers: Workers) -> None:
    cat = Path(workers.deployments["table"].path)
    dog = workers.bundle("dog", always="dog")
    broken = Path(shutil.copytree(dog, workers.workspace.home / "made" / "broken"))
    (broken / "graph.onnx").write_bytes(b"broken")
    with Load(workers, expected_prices(workers)) as load:
        for version, folder in enumerate((dog, cat, broken, dog, cat, dog), 2):
            workers.deploy("table", folder, version)
            workers.apply()
            if folder is broken:
                assert all("table" in state.failed for state in workers.states())
            time.sleep(0.4)
    assert load.failures == []
    assert load.answers > 500
    assert load.labels == {"cat", "dog"}


def test_a_worker_that_is_killed_takes_only_its_own_requests_along(workers: Workers) -> None:
    with Load(workers, expected_prices(workers), callers=4) as load:
        time.sleep(0.5)
        workers.kill(0)
        time.sleep(0.5)
        workers.start_worker()
        workers.wait(lambda: len(workers.states()) == 2)
        answers = load.answers
        workers.wait(lambda: load.answers > answers + 100)
    foreign = [failure for failure in load.failures if "another's" in failure]
    assert foreign == []
    # Connections to the dead worker break (each caller has one); after that nothing fails.
    assert len(load.failures) <= 3 * 4
    assert all("Connection" in failure or "Remote" in failure or "BrokenPipe" in failure for failure in load.failures)


def test_sigterm_answers_what_is_under_way(workers: Workers) -> None:
    body = b'{"age": 1, "city": "Berlin"}'
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {workers.key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        connections: list[socket.socket] = [stack.enter_context(workers.connect()) for _ in range(8)]
        for connection in connections:
            connection.sendall(head.encode() + body[:5])
        time.sleep(0.3)
        for process in workers.processes:
            process.terminate()
        time.sleep(0.2)
        for connection in connections:
            connection.sendall(body[5:])
        answers = [connection.recv(65536) for connection in connections]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert [process.wait(20) for process in workers.processes] == [0, 0]
    assert list(workers.workspace.workers_folder.glob("*.json")) == []
