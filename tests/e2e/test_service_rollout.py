"""Rollouts under load: no request is lost, every answer belongs to its own request, and goes where routing says."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from tests.contract.harness import Workers
from tests.e2e.command import Home
from tests.fixtures.bundles import make_bundle

from yunmo.bundle.archive import export
from yunmo.client.client import Client
from yunmo.inference.predictor import Predictor
from yunmo.serving.routing import place

PATH = "/api/v1/endpoints/table/predict"


@dataclass(frozen=True)
class Place:
    """Where the load goes to."""

    address: str
    port: int
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def http(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, self.port, timeout=20)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.address, self.port), timeout=10)


class Load:
    """Callers that never pause. Each request holds numbers of its own; the answer must be those numbers' answer."""

    def __init__(self, workers: Workers | Place, expected: dict[int, float], *, callers: int = 6) -> None:
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
    return prices(Path(workers.deployments["table"].live.path), workers.public)


def prices(folder: Path, public: str) -> dict[int, float]:
    predictor = Predictor.open(folder, public_key_pem=public)
    ages = list(range(0, 6000, 3))
    rows = [{"age": age, "city": "Berlin"} for age in ages]
    return {age: each["price"]["value"] for age, each in zip(ages, predictor.predict(rows), strict=True)}


def test_rollouts_good_bad_and_back_lose_and_mix_up_nothing(workers: Workers) -> None:
    cat = Path(workers.deployments["table"].live.path)
    dog = workers.bundle("dog", always="dog")
    broken = workers.bundle("broken", always="fish")
    (broken / "graph.onnx").write_bytes(b"broken")
    with Load(workers, expected_prices(workers)) as load:
        for version, folder in enumerate((dog, cat, broken, dog, cat, dog), 2):
            workers.deploy("table", folder, version)
            workers.apply()
            if folder is broken:
                assert all(state.endpoints["p/table"].failed for state in workers.states())
            time.sleep(0.4)
    assert load.failures == []
    assert load.answers > 500
    assert load.labels == {"cat", "dog"}


def versions(workers: Workers | Place, names: list[str]) -> dict[str, int]:
    """Return the version that answers each sticky name, asked over a new connection each."""
    found = {}
    for name in names:
        connection = workers.http()
        headers = {**workers.headers, "content-type": "application/json", "yunmo-sticky": name}
        connection.request("POST", PATH, b'{"age": 1, "city": "Berlin"}', headers)
        found[name] = json.loads(connection.getresponse().read())["version"]
        connection.close()
    return found


def test_a_canary_gets_exactly_its_share_is_promoted_and_nobody_goes_back_and_forth(workers: Workers) -> None:
    cat = Path(workers.deployments["table"].live.path)
    dog = workers.bundle("dog", always="dog")
    names = [f"user {number}" for number in range(150)]
    with Load(workers, expected_prices(workers), callers=3) as load:
        moved: set[str] = set()
        for weight in (10, 30, 60):
            workers.beside("table", dog, 2, "canary", weight)
            workers.apply()
            canary = {name for name, version in versions(workers, names).items() if version == 2}
            assert canary == {name for name in names if place("table", name) < weight * 100}
            assert moved < canary
            moved = canary
        workers.deploy("table", dog, 2)
        workers.beside("table", cat, 1, "standby", 0)
        workers.apply()
        assert set(versions(workers, names[:20]).values()) == {2}
        workers.deploy("table", cat, 1)
        workers.apply()
        assert set(versions(workers, names[:20]).values()) == {1}
    assert load.failures == []
    assert load.answers > 200
    assert load.labels == {"cat", "dog"}


def test_a_key_stays_on_its_side_if_the_endpoint_sticks_to_keys(workers: Workers) -> None:
    keys = [workers.add_key("predict") for _ in range(12)]
    dog = workers.bundle("dog", always="dog")
    workers.beside("table", dog, 2, "canary", 50)
    workers.deployments["table"] = msgspec.structs.replace(workers.deployments["table"], sticky="key")
    workers.apply()
    expected = [2 if place("table", record.id) < 5000 else 1 for record in workers.keys[1:]]
    assert set(expected) == {1, 2}
    for _ in range(3):
        found = []
        for key in keys:
            connection = workers.http()
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            connection.request("POST", PATH, b'{"age": 1, "city": "Berlin"}', headers)
            found.append(json.loads(connection.getresponse().read())["version"])
            connection.close()
        assert found == expected


def shadow_results(workers: Workers, version: int) -> dict[str, float]:
    """Return how often a shadow's answers agreed, differed, or there was none."""
    connection = workers.http()
    connection.request("GET", "/metrics", headers=workers.headers)
    page = connection.getresponse().read().decode()
    connection.close()
    found = {"agrees": 0.0, "differs": 0.0, "failed": 0.0}
    for line in page.splitlines():
        if line.startswith("yunmo_shadow_answers_total{") and f'version="{version}"' in line:
            found[line.partition('result="')[2].partition('"')[0]] += float(line.rpartition(" ")[2])
    return found


def test_a_shadow_is_never_returned_and_harms_nobody_even_if_it_always_fails(workers: Workers) -> None:
    shadows = (
        workers.bundle("twin", always="cat"),
        workers.bundle("dog", always="dog"),
        workers.bundle("breaks", always="dog", breaks=True),  # for nearly every age that is sent
        workers.bundle("pictures", kind="image"),  # takes other fields
    )
    results = []
    with Load(workers, expected_prices(workers)) as load:
        for version, folder in enumerate(shadows, 2):
            workers.beside("table", folder, version, "shadow")
            workers.apply()
            answers = load.answers
            workers.wait(lambda answers=answers: load.answers > answers + 300)
            results.append(shadow_results(workers, version))
    assert load.failures == []
    assert load.labels == {"cat"}
    twin, other, broken, foreign = results
    assert twin["agrees"] > 0 == twin["differs"]
    assert other["differs"] > 0 == other["agrees"]
    assert broken["failed"] > 0 == broken["agrees"]
    assert foreign["failed"] > 0 == foreign["agrees"] + foreign["differs"]


def test_deployed_promoted_and_rolled_back_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path / "home", {"YUNMO_WORKERS": "2"})
    with home.up() as service, Client(service.url, home.key) as client:
        for always in ("cat", "dog", "fish"):
            folder = tmp_path / always
            make_bundle(folder, name="table", private_key=home.path / "signing.key", always=always)
            export(folder, tmp_path / f"{always}.zip")
            client.import_bundle(tmp_path / f"{always}.zip")
        client.deploy("table:1")
        expected = prices(tmp_path / "cat", (home.path / "signing.pub").read_text())
        where = urlsplit(service.url)
        load = Load(Place(str(where.hostname), where.port or 0, home.key), expected)
        seconds = []
        with load:
            for _ in range(3):
                client.deploy("table:2", canary=20)
                client.deploy("table:3", shadow=True)
                assert client.deploy("table:2").live.version == 2
                assert client.predict("table", [{"age": 1, "city": "Berlin"}])[0]["label"]["value"] == "dog"
                began = time.monotonic()
                assert client.rollback("table").live.version == 1
                seconds.append(time.monotonic() - began)
                for _ in range(10):
                    assert client.predict("table", [{"age": 1, "city": "Berlin"}])[0]["label"]["value"] == "cat"
                client.deploy("table:2", canary=50)
                assert client.rollback("table").canary is None
        assert service.stop() == 0
    with capsys.disabled():
        print(f"\nrollback under load: {', '.join(f'{each:.3f}' for each in seconds)} s, {load.answers} answers")  # noqa: T201 (a figure to report)
    assert load.failures == []
    assert load.labels == {"cat", "dog"}
    assert max(seconds) < 10


def test_the_command_line_does_the_same_without_a_service(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.ok("models", "ls")
    for always in ("cat", "dog"):
        make_bundle(tmp_path / always, name="table", private_key=home.path / "signing.key", always=always)
        export(tmp_path / always, tmp_path / f"{always}.zip")
        home.ok("models", "import", tmp_path / f"{always}.zip")
    assert home.ok("deploy", "table:1", "--json").json["ready"] is True
    tried = home.ok("deploy", "table:2", "--canary", "99", "--json").json
    assert (tried["live"]["weight"], tried["canary"]["weight"], tried["ready"]) == (1, 99, True)
    limited = home.ok("endpoints", "set", "table", "--concurrency", "2", "--json").json
    assert limited["limits"]["concurrency"] == 2
    assert home.ok("deploy", "table:2", "--json").json["live"]["version"] == 2
    assert home.ok("rollback", "table", "--json").json["live"]["version"] == 1


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
