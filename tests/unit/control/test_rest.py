import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from tests.unit.control.service import Api, problem

from yunmo.control.context import Context
from yunmo.control.rest.access import check_routes
from yunmo.core.errors import InternalError
from yunmo.core.events import Envelope, RunCancelled, RunNotice, RunQueued
from yunmo.core.snapshot import decode_snapshot


def test_every_error_is_a_problem_document(api: Api) -> None:
    problem(api.get("/nothing"), 404, "not_found")
    problem(api.get("/runs/run_x"), 404, "not_found")
    problem(api.delete("/runs"), 405, "method_not_allowed")
    problem(api.post("/runs", content=b"{"), 422, "invalid_input")
    found = problem(api.post("/runs", {"recipe": {"data": {"dataset": "d"}}, "taget": "x"}), 422, "invalid_input")
    assert found["where"] == "body, taget"
    found = problem(api.post("/runs", {"recipe": {"data": {"datset": "d"}}}), 422, "invalid_recipe")
    assert "dataset" in found["remedy"]
    problem(api.get("/datasets/x/notanumber"), 422, "invalid_input")
    problem(api.get("/runs/run_x/events"), 404, "not_found")


def test_an_unexpected_error_hides_its_text(api: Api, context: Context, caplog: pytest.LogCaptureFixture) -> None:
    context.database.close()
    context.events.close()
    (context.workspace.home / "metadata.sqlite").unlink()
    found = problem(api.get("/runs"), 500, "internal")
    assert "sqlite" not in json.dumps(found).lower()
    assert found["instance"] in str([record.__dict__ for record in caplog.records])
    assert "no such table" in caplog.text or "unable to open" in caplog.text


def test_a_body_over_the_limit_is_refused_while_it_arrives(api: Api, context: Context) -> None:
    problem(api.post("/keys", content=b" " * (context.settings.max_body + 1)), 413, "too_large")


def test_scopes_are_asked_for(context: Context) -> None:
    reader, nobody = Api(context, "read"), Api(context, "predict")
    assert reader.get("/runs").status_code == 200
    problem(reader.post("/runs", {"recipe": {}}), 403, "forbidden")
    problem(reader.get("/keys"), 403, "forbidden")
    problem(nobody.get("/runs"), 403, "forbidden")
    problem(Api(context, "write").get("/keys"), 403, "forbidden")


def test_a_request_without_principal_is_refused_and_a_header_gives_one(api: Api) -> None:
    principal = api.principal
    api.principal = None  # type: ignore[assignment]
    problem(api.get("/runs"), 401, "unauthenticated")
    problem(api.get("/runs", headers={"x-yunmo-principal": "nonsense"}), 401, "unauthenticated")
    header = base64.b64encode(msgspec.json.encode(principal)).decode()
    assert api.get("/runs", headers={"x-yunmo-principal": header}).status_code == 200


def test_a_route_without_scope_keeps_the_application_from_starting() -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/open")
    def open_to_all() -> int:
        return 1

    with pytest.raises(InternalError, match="/open"):
        check_routes(app)


def test_the_same_bytes_are_the_same_version(api: Api, table: Path) -> None:
    first = api.add("flowers", table)
    assert (first["version"], first["kind"], first["rows"]) == (1, "csv", {"train": 140})
    assert {field["name"]: field["type"] for field in first["schema"]}["petals"] == "number"
    assert api.add("flowers", table)["id"] == first["id"]
    table.write_text(table.read_text() + "1,1,early\n")
    assert api.add("flowers", table)["version"] == 2
    assert [each["version"] for each in api.get("/datasets").json()] == [1, 2]
    assert api.get("/datasets/flowers").json()["version"] == 2
    assert api.get("/datasets/flowers/1").json() == first
    problem(api.get("/datasets/flowers/3"), 404, "not_found")


def test_data_that_cannot_be_read_is_named_as_its_owner_knows_it(api: Api) -> None:
    digest = api.post("/uploads", content=b"").json()["digest"]
    answer = api.post("/datasets", {"name": "x", "splits": {"train": {"digest": digest, "filename": "empty.csv"}}})
    assert "empty.csv" in problem(answer, 422, "invalid_data")["where"]
    assert api.get("/datasets").json() == []


def test_another_project_sees_and_uses_nothing(api: Api, context: Context, table: Path) -> None:
    api.add("flowers", table)
    digest = api.get("/datasets").json()[0]["splits"]["train"]["digest"]
    run = api.post("/runs", {"recipe": {"data": {"dataset": "flowers"}}}).json()["id"]
    other = Api(context, "admin", project_id="other")
    for path in ("/datasets", "/runs", "/models", "/endpoints", "/keys"):
        assert other.get(path).json() == []
    for path in ("/datasets/flowers", f"/runs/{run}", f"/runs/{run}/events", f"/runs/{run}/log"):
        problem(other.get(path), 404, "not_found")
    problem(other.post(f"/runs/{run}/cancel"), 404, "not_found")
    stolen = {"name": "mine", "splits": {"train": {"digest": digest, "filename": "a.csv"}}}
    problem(other.post("/datasets", stolen), 404, "not_found")


def test_a_waiting_run_is_cancelled_at_once_and_resumed(api: Api, table: Path) -> None:
    api.add("flowers", table)
    runs = [api.post("/runs", {"recipe": {"data": {"dataset": "flowers"}}}).json() for _ in range(2)]
    assert [(run["name"], run["status"], run["dataset"]) for run in runs] == [("flowers", "queued", "flowers:1")] * 2
    path = f"/runs/{runs[0]['id']}"
    assert api.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert api.post(f"{path}/cancel").json()["status"] == "cancelled"
    problem(api.get(f"{path}/report"), 404, "not_found")
    resumed = api.post(f"{path}/resume").json()
    assert (resumed["status"], resumed["attempt"]) == ("queued", 2)
    again = api.post(f"{path}/resume").json()
    assert (again["status"], again["attempt"]) == ("queued", 2)  # it waits already: nothing changes
    assert [run["id"] for run in api.get("/runs").json()] == [runs[1]["id"], runs[0]["id"]]


def test_events_are_streamed_from_where_one_stopped_until_the_real_end(api: Api, context: Context, table: Path) -> None:
    api.add("flowers", table)
    run = api.post("/runs", {"recipe": {"data": {"dataset": "flowers"}}}).json()["id"]
    context.events.emit("default", "run_other", RunNotice(message="not mine"))
    api.post(f"/runs/{run}/cancel")
    api.post(f"/runs/{run}/resume")
    api.post(f"/runs/{run}/cancel")
    answer = api.get(f"/runs/{run}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in answer.text.strip().split("\n\n")]
    assert [block["event"] for block in blocks] == ["run.queued", "run.queued", "run.cancelled"]
    last = msgspec.json.decode(blocks[-1]["data"], type=Envelope)
    assert isinstance(last.event, RunCancelled)
    assert last.sequence == int(blocks[-1]["id"])
    rest = api.get(f"/runs/{run}/events", headers={"last-event-id": blocks[1]["id"]})
    assert rest.text.count("data: ") == 1
    assert isinstance(context.events.read(subject=run)[0].event, RunQueued)


def test_keys_are_published_at_once_and_shown_once(api: Api, context: Context) -> None:
    def published() -> dict[str, str]:
        snapshot = decode_snapshot(context.workspace.snapshot_path.read_bytes())
        return {key.id: key.name for key in snapshot.keys}

    assert list(published().values()) == ["workspace"]
    created = api.post("/keys", {"name": "phone", "scopes": ["predict"], "endpoints": ["pets"]}).json()
    assert created["secret"].startswith(f"ym_{created['key']['prefix']}_")
    assert published()[created["key"]["id"]] == "phone"
    listed = api.get("/keys").text
    assert created["secret"] not in listed
    assert created["secret"].encode() not in (context.workspace.home / "metadata.sqlite").read_bytes()
    assert api.delete(f"/keys/{created['key']['id']}").status_code == 204
    assert list(published().values()) == ["workspace"]
    problem(api.delete(f"/keys/{created['key']['id']}"), 404, "not_found")
    problem(api.delete(f"/keys/{api.get('/keys').json()[0]['id']}"), 409, "conflict")
    problem(api.post("/keys", {"name": "x", "scopes": ["root"]}), 422, "invalid_input")
    problem(api.post("/keys", {"name": "x", "expires_in": 0}), 422, "invalid_input")


def test_snapshot_numbers_rise_also_when_the_file_is_lost(api: Api, context: Context) -> None:
    def number() -> int:
        return decode_snapshot(context.workspace.snapshot_path.read_bytes()).number

    before = number()
    api.post("/keys", {"name": "a"})
    assert number() == before + 1
    context.workspace.snapshot_path.unlink()
    api.post("/keys", {"name": "b"})
    assert number() == before + 2


def test_what_is_no_bundle_is_not_imported(api: Api) -> None:
    problem(api.post("/models", content=b"no zip"), 422, "invalid_bundle")
    assert api.get("/models").json() == []


def test_the_description_names_every_route_and_loads_nothing_from_elsewhere(api: Api) -> None:
    description = api.request("GET", "/openapi.json").json()
    assert "/api/v1/runs/{run_id}/events" in description["paths"]
    assert description["paths"]["/api/v1/runs"]["post"]["responses"]["default"]["content"].keys() == {
        "application/problem+json"
    }
    page = api.request("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in description["paths"]:
        assert path in page.text
    assert "<script" not in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_a_run_reads_embeddings_that_its_project_uploaded_and_no_path(api: Api, context: Context, table: Path) -> None:
    api.add("flowers", table)
    secret = context.workspace.home / "workspace.key"
    digest = api.post("/uploads", content=b"a 1 2\n").json()["digest"]
    other = Api(context, "admin", project_id="other")

    def ask(api: Api = api, **embeddings: str) -> Any:
        field = {"name": "petals", "type": "text", "encoder": {"type": "textcnn"}, "embeddings": embeddings}
        return api.post("/runs", {"recipe": {"data": {"dataset": "flowers"}, "inputs": [field]}, "target": "season"})

    for path in (str(secret), "vectors.txt", "../vectors.txt"):
        found = problem(ask(file=path), 422, "invalid_recipe")
        assert "only its owner can read" in found["detail"]
    assert digest in problem(ask(other, file="v.txt", digest=digest), 404, "not_found")["detail"]
    problem(ask(file="v.txt", digest="sha256:" + "0" * 64), 404, "not_found")
    problem(ask(file="v.txt", digest="../../workspace.key"), 404, "not_found")
    for name in ("../v.txt", str(secret), "..", "a\0b"):
        problem(ask(file=name, digest=digest), 422, "invalid_input")
    assert api.get("/runs").json() == []
    assert ask(file="v.txt", digest=digest).status_code == 202
