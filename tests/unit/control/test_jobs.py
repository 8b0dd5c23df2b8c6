"""Jobs through the management API, carried out by a real runner and its child process."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.bundles import make_bundle
from tests.unit.control.service import Api, problem, running
from tests.unit.control.test_runner import RUNNER, children_of

from yunmo.bundle import archive
from yunmo.control.context import Context
from yunmo.control.services.jobs import ANSWERS
from yunmo.core.access import Principal
from yunmo.inference.predictor import Predictor

MANY = 100_000
"""Rows that take some quarters of a second, as often as answers are kept."""


@pytest.fixture
def predictor(context: Context, api: Api, tmp_path: Path) -> Predictor:
    """The model behind the endpoint ``pets``."""
    folder = tmp_path / "bundle"
    make_bundle(folder, private_key=context.signing_keys()[0])
    archive.export(folder, tmp_path / "bundle.zip")
    assert api.post("/models", content=(tmp_path / "bundle.zip").read_bytes()).status_code == 201
    assert api.put("/endpoints/pets", {"model": "tiny:1"}).status_code == 200
    return Predictor.open(folder, public_key_pem=context.trusted_key())


def rows_file(path: Path, count: int) -> Path:
    path.write_text("id,age,city\n" + "".join(f"r{i},{i % 90},{'Berlin' if i % 3 else ''}\n" for i in range(count)))
    return path


def start(api: Api, path: Path, **more: Any) -> dict[str, Any]:
    api.add("rows", path)
    answer = api.post("/endpoints/pets/jobs", {"dataset": "rows", **more})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wait_for(api: Api, job: dict[str, Any], done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found: dict[str, Any] = api.get(f"/endpoints/pets/jobs/{job['id']}").json()
        if done(found):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def ended(job: dict[str, Any]) -> bool:
    return job["status"] not in ("queued", "running")


def answers(context: Context, api: Api, job: dict[str, Any]) -> list[dict[str, str]]:
    name, _, version = job["output"].partition(":")
    dataset = api.get(f"/datasets/{name}/{version}").json()
    assert dataset["rows"] == {"train": job["rows"]}
    text = context.artefacts.get(dataset["splits"]["train"]["digest"]).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_every_row_is_answered_and_the_answers_are_a_dataset(
    context: Context, api: Api, predictor: Predictor, tmp_path: Path
) -> None:
    with running(context):
        job = start(api, rows_file(tmp_path / "r.csv", 500))
        assert (job["status"], job["model"], job["version"], job["dataset"]) == ("queued", "tiny", 1, "rows:1")
        job = wait_for(api, job, ended)
    assert (job["status"], job["done"], job["rows"], job["output"]) == ("succeeded", 500, 500, "rows-answers:1")
    found = answers(context, api, job)
    expected = predictor.predict([{"age": i % 90, "city": "Berlin" if i % 3 else None} for i in range(500)])
    assert [row["id"] for row in found] == [f"r{i}" for i in range(500)]
    assert [row["predicted_label"] for row in found] == [each["label"]["value"] for each in expected]
    for column, output, key in (("label_probability", "label", "probability"), ("predicted_price", "price", "value")):
        wanted = [each[output][key] for each in expected]
        assert [float(row[column]) for row in found] == pytest.approx(wanted, abs=1e-5)
    assert api.get("/endpoints/pets/jobs").json() == [job]
    assert not (context.workspace.runs_folder(job["id"]) / ANSWERS).exists()


def test_the_same_answers_are_the_same_version(
    context: Context, api: Api, predictor: Predictor, tmp_path: Path
) -> None:
    assert predictor.digest
    path = rows_file(tmp_path / "r.csv", 20)
    with running(context):
        outputs = [wait_for(api, start(api, path, name="told"), ended)["output"] for _ in range(2)]
    assert outputs == ["told:1", "told:1"]


def test_a_killed_runner_goes_on_after_the_rows_that_were_kept(
    context: Context, api: Api, predictor: Predictor, tmp_path: Path
) -> None:
    assert predictor.digest
    job = start(api, rows_file(tmp_path / "r.csv", MANY))
    state = context.workspace.runs_folder(job["id"]) / f"{ANSWERS}.part.json"
    with subprocess.Popen([sys.executable, "-c", RUNNER, str(context.workspace.home)]) as runner:
        wait_for(api, job, lambda _: state.is_file())
        children = children_of(runner.pid)
        runner.send_signal(signal.SIGKILL)
    assert children
    end = time.monotonic() + 10
    while any(child.is_running() and child.status() != "zombie" for child in children):
        assert time.monotonic() < end, "the child outlives its runner"
        time.sleep(0.05)
    kept = json.loads(state.read_bytes())["rows"]
    before = wait_for(api, job, lambda _: True)["done"]
    assert before <= kept < MANY
    with running(context):
        assert wait_for(api, job, lambda found: found["done"] != before or ended(found))["done"] >= kept > 0
        job = wait_for(api, job, ended)
    assert (job["status"], job["attempt"], job["done"]) == ("succeeded", 1, MANY), job["problem"]
    assert [row["id"] for row in answers(context, api, job)] == [f"r{i}" for i in range(MANY)]


def test_cancelled_it_keeps_its_answers_and_a_killed_child_is_started_anew(
    context: Context, api: Api, predictor: Predictor, tmp_path: Path
) -> None:
    assert predictor.digest
    with running(context):
        job = start(api, rows_file(tmp_path / "r.csv", MANY))
        path = f"/endpoints/pets/jobs/{job['id']}"
        wait_for(api, job, lambda found: found["done"] > 0)
        assert api.post(f"{path}/cancel").status_code == 202
        stopped = wait_for(api, job, ended)
        assert stopped["status"] == "cancelled"
        assert api.post(f"{path}/resume").json()["status"] == "queued"
        wait_for(api, job, lambda found: bool(children_of(os.getpid())) or ended(found))
        [child] = children_of(os.getpid())
        child.kill()
        job = wait_for(api, job, ended)
    assert (job["status"], job["attempt"]) == ("succeeded", 2), job["problem"]
    assert [row["id"] for row in answers(context, api, job)] == [f"r{i}" for i in range(MANY)]
    problem(api.post(f"{path}/resume"), 409, "conflict")
    problem(api.post(f"{path}/cancel"), 409, "conflict")


def test_an_endpoint_that_is_taken_away_half_way_fails_the_job(
    context: Context, api: Api, predictor: Predictor, tmp_path: Path
) -> None:
    assert predictor.digest
    with running(context):
        job = start(api, rows_file(tmp_path / "r.csv", MANY))
        wait_for(api, job, lambda found: found["done"] > 0)
        assert api.delete("/endpoints/pets").status_code == 204
        job = wait_for(api, job, ended)
    assert (job["status"], job["problem"]["code"]) == ("failed", "not_found")
    assert "taken away" in job["problem"]["detail"]
    assert job["output"] is None
    assert api.get("/datasets/rows-answers").status_code == 404


def test_data_that_is_gone_or_does_not_fit_fails_the_job(
    context: Context, api: Api, predictor: Predictor, tmp_path: Path
) -> None:
    assert predictor.digest
    lost = start(api, rows_file(tmp_path / "lost.csv", 20))
    context.artefacts.delete(api.get("/datasets/rows").json()["splits"]["train"]["digest"])
    (tmp_path / "wrong.csv").write_text("age,city\n" + "1,Berlin\n" * 200 + "old,Berlin\n")
    wrong = start(api, tmp_path / "wrong.csv")
    (tmp_path / "lacks.csv").write_text("age\n1\n2\n")
    lacks = start(api, tmp_path / "lacks.csv")
    with running(context):
        found = [wait_for(api, job, ended) for job in (lost, wrong, lacks)]
    assert [job["status"] for job in found] == ["failed"] * 3
    assert found[0]["problem"]["code"] == "not_found"
    assert (found[1]["problem"]["code"], found[1]["problem"]["where"]) == (
        "invalid_data",
        "wrong.csv, row 202, field age",
    )
    assert "no column 'city'" in found[2]["problem"]["detail"]


def test_a_job_needs_the_right_to_call_the_endpoint_and_to_make_datasets(
    context: Context, api: Api, predictor: Predictor, tmp_path: Path
) -> None:
    assert predictor.digest
    api.add("rows", rows_file(tmp_path / "r.csv", 5))
    wanted = {"dataset": "rows"}
    for scopes in (("write",), ("predict", "read"), ("predict",), ("read",)):
        problem(Api(context, *scopes).post("/endpoints/pets/jobs", wanted), 403, "forbidden")  # type: ignore[arg-type]
    limited = Api(context)
    limited.principal = Principal("key_x", "default", frozenset(("write", "predict")), frozenset(("others",)))
    problem(limited.post("/endpoints/pets/jobs", wanted), 404, "not_found")
    stranger = Api(context, "admin", project_id="other")
    problem(stranger.post("/endpoints/pets/jobs", wanted), 404, "not_found")
    job = Api(context, "predict", "write").post("/endpoints/pets/jobs", wanted).json()
    problem(stranger.get(f"/endpoints/pets/jobs/{job['id']}"), 404, "not_found")
    problem(stranger.get("/endpoints/pets/jobs"), 404, "not_found")
    problem(api.get(f"/endpoints/others/jobs/{job['id']}"), 404, "not_found")
    problem(Api(context, "read").post(f"/endpoints/pets/jobs/{job['id']}/cancel"), 403, "forbidden")
    assert api.post(f"/endpoints/pets/jobs/{job['id']}/cancel").json()["status"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"dataset": "gone"}, 404, "not_found"),
        ({"dataset": "rows:9"}, 404, "not_found"),
        ({"dataset": "rows@x"}, 422, "invalid_input"),
        ({"dataset": "rows", "split": "test"}, 404, "not_found"),
        ({"dataset": "rows", "name": "No Name"}, 422, "invalid_input"),
        ({"dataset": "rows", "name": "rows"}, 422, "invalid_input"),
        ({"dataset": "rows", "datset": 1}, 422, "invalid_input"),
        ({}, 422, "invalid_input"),
    ],
)
def test_what_cannot_be_answered_is_refused_at_once(
    api: Api, predictor: Predictor, tmp_path: Path, body: dict[str, Any], status: int, code: str
) -> None:
    assert predictor.digest
    api.add("rows", rows_file(tmp_path / "r.csv", 5))
    problem(api.post("/endpoints/pets/jobs", body), status, code)
    problem(api.post("/endpoints/gone/jobs", {"dataset": "rows"}), 404, "not_found")
    assert api.get("/endpoints/pets/jobs").json() == []
