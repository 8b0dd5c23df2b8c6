"""What can be done with the model of one real run."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.unit.control.service import Api, begin, ended, long, problem, running, steps, wait_for

from yunmo.control.context import Context, open_context
from yunmo.control.services.keys import Keys
from yunmo.core.events import Envelope, RunFinished
from yunmo.core.resources import Run
from yunmo.core.snapshot import decode_snapshot
from yunmo.store.workspace import Workspace


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Context, Api, Path, Run]]:
    found = load_digits()
    data = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(data, image=(found.images[:360] * 15).astype(np.uint8), label=found.target[:360])
    workspace = Workspace(tmp_path_factory.mktemp("home"))
    with open_context(workspace, workspace.settings()) as context:
        Keys(context).start()
        api = Api(context, "admin", "predict")
        with running(context):
            run_id = begin(api, data, long(2), "label")
            yield context, api, data, wait_for(context, run_id, ended)


def test_it_becomes_a_signed_version(done: tuple[Context, Api, Path, Run]) -> None:
    context, api, _, run = done
    assert (run.status, run.model, run.version, run.problem) == ("succeeded", "digits", 1, None)
    assert run.resolved is not None
    assert run.resolved["train"]["epochs"] == 2
    assert set(run.resolved["data"]["digests"]) == {"train"}
    assert run.summary is not None
    assert 0 < run.summary["accuracy"] <= 1
    assert steps(context, run.id) == ["prepare", "train", "evaluate", "pack", "sign", "register"]
    [version] = api.get("/models/digits").json()
    assert version["aliases"] == ["champion"]
    assert version["run_id"] == run.id
    assert api.get("/models/digits/1/verify").json()["valid"] is True
    wait_for(context, run.id, lambda _: is_finished(context.events.last(run.id)))


def test_its_caches_and_checkpoints_are_gone_once_it_is_over(done: tuple[Context, Api, Path, Run]) -> None:
    context, _, _, run = done
    wait_for(context, run.id, lambda _: is_finished(context.events.last(run.id)))
    left = {path.name for path in context.workspace.runs_folder(run.id).iterdir()}
    assert left == {"log.txt", "report.json", "report.html"}


def test_its_report_and_log_can_be_read(done: tuple[Context, Api, Path, Run]) -> None:
    _, api, _, run = done
    report = api.get(f"/runs/{run.id}/report").json()
    assert report["test"]["label"]["rows"] == 72
    assert api.get("/models/digits/1/report").json() == report
    page = api.get(f"/runs/{run.id}/report", headers={"accept": "text/html,*/*"})
    assert page.text.lower().startswith("<!doctype html>")
    assert "step train" in api.get(f"/runs/{run.id}/log").text


def test_what_is_exported_can_be_imported_and_a_changed_byte_cannot(done: tuple[Context, Api, Path, Run]) -> None:
    _, api, _, _ = done
    archive = api.get("/models/digits/1/bundle").content
    again = api.post("/models", content=archive)
    assert (again.status_code, again.json()["version"]) == (201, 1)
    changed = bytearray(archive)
    place = archive.index(b"recipe.yaml") + 60
    changed[place] ^= 1
    refused = problem(api.post("/models", content=bytes(changed)), 422, api_code(api, bytes(changed)))
    assert refused["detail"]
    assert len(api.get("/models").json()) == 1


def test_a_bundle_of_another_workspace_is_refused(done: tuple[Context, Api, Path, Run], tmp_path: Path) -> None:
    _, api, _, _ = done
    archive = api.get("/models/digits/1/bundle").content
    workspace = Workspace(tmp_path / "elsewhere")
    with open_context(workspace, workspace.settings()) as other:
        refused = problem(Api(other, "admin").post("/models", content=archive), 422, "integrity")
        assert "this workspace signed" in refused["remedy"]


def test_it_is_evaluated_through_the_bundle(done: tuple[Context, Api, Path, Run]) -> None:
    _, api, data, _ = done
    digest = api.post("/uploads", content=data.read_bytes()).json()["digest"]
    answer = api.post("/models/digits/1/evaluate", {"data": {"digest": digest, "filename": "digits.npz"}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"] == 360
    digest = api.post("/uploads", content=b"image,label\n1,2\n").json()["digest"]
    answer = api.post("/models/digits/1/evaluate", {"data": {"digest": digest, "filename": "wrong.csv"}})
    assert "wrong.csv" in problem(answer, 422, "invalid_data")["where"]


def test_an_endpoint_without_workers_is_published_but_not_ready(done: tuple[Context, Api, Path, Run]) -> None:
    context, api, _, _ = done
    endpoint = api.put("/endpoints/numbers", {"model": "digits@champion"}).json()
    assert (endpoint["live"]["model"], endpoint["live"]["version"], endpoint["ready"]) == ("digits", 1, False)
    [deployment] = decode_snapshot(context.workspace.snapshot_path.read_bytes()).deployments
    assert (deployment.endpoint, deployment.live.digest) == ("numbers", endpoint["live"]["digest"])
    assert (Path(deployment.live.path) / "manifest.json").is_file()
    paths = api.request("GET", "/openapi.json").json()["paths"]
    schema = paths["/api/v1/endpoints/numbers/predict"]["post"]["requestBody"]["content"]
    assert "image" in str(schema["application/json"])
    problem(api.post("/endpoints/numbers/rollback"), 409, "conflict")
    problem(api.put("/endpoints/numbers", {"model": "digits:9"}), 404, "not_found")
    assert api.delete("/endpoints/numbers").status_code == 204
    assert decode_snapshot(context.workspace.snapshot_path.read_bytes()).deployments == ()


def test_a_worker_that_refuses_takes_the_deployment_back(done: tuple[Context, Api, Path, Run]) -> None:
    context, api, _, _ = done
    digest = api.get("/models/digits/1").json()["digest"]
    state = context.workspace.workers_folder / f"{os.getpid()}.json"
    # A worker that has applied every snapshot to come, and refuses this bundle.
    text = '{"pid": %d, "snapshot": 1000000, "endpoints": {"default/numbers": {"snapshot": 1000000, %s}}}'
    state.write_text(text % (os.getpid(), f'"failed": {{"{digest}": "no memory"}}'))
    refused = problem(api.put("/endpoints/numbers", {"model": "digits:1"}), 422, "invalid_bundle")
    assert "no memory" in refused["detail"]
    assert api.get("/endpoints").json() == []
    state.write_text(text % (os.getpid(), f'"loaded": ["{digest}"]'))
    assert api.put("/endpoints/numbers", {"model": "digits:1"}).json()["ready"] is True
    state.unlink()


def api_code(api: Api, archive: bytes) -> str:
    code: str = api.post("/models", content=archive).json()["code"]
    assert code in {"integrity", "invalid_bundle", "unsafe_archive"}
    return code


def is_finished(envelope: Envelope | None) -> bool:
    return envelope is not None and isinstance(envelope.event, RunFinished)
