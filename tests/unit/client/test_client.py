import asyncio
import inspect
import json
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from tests.unit.client.fake_service import KEY, RUN, State, happy_events, serve

from yunmo.client import requests
from yunmo.client.client import AsyncClient, Client
from yunmo.core.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    RecipeError,
    Unauthenticated,
    Unavailable,
    YunmoError,
)
from yunmo.core.events import RunFinished
from yunmo.core.resources import Endpoint, Run


@pytest.fixture
def state() -> State:
    return State(events=happy_events())


@pytest.fixture
def client(state: State) -> Iterator[Client]:
    with serve(state) as url, Client(url, KEY) as client:
        yield client


def test_upload_streams_the_file_and_tells_its_progress(client: Client, state: State, tmp_path: Path) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(b"x" * (5 * 2**20 + 3))
    told: list[tuple[int, int]] = []
    stored = client.upload(file, progress=lambda sent, total: told.append((sent, total)))
    assert state.uploads[stored.digest] == file.read_bytes()
    assert told[-1] == (stored.size, stored.size)
    assert len(told) == 6
    headers = state.named("POST", "/api/v1/uploads")[0][2]
    assert "transfer-encoding" not in headers


def test_add_dataset_sends_a_folder_as_an_archive(client: Client, state: State, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "1.jpg").write_bytes(name.encode())
    added = client.add_dataset("pets", {"train": tmp_path / "pets"})
    train = added.splits["train"]
    with zipfile.ZipFile(BytesIO(state.uploads[train.digest])) as archive:
        assert sorted(archive.namelist()) == ["cat/1.jpg", "dog/1.jpg"]
    assert train.filename == "pets.zip"


def test_train_uploads_what_the_recipe_names_relative_to_its_folder(
    client: Client, state: State, tmp_path: Path
) -> None:
    (tmp_path / "Pets 1.csv").write_text("a,b\n1,2\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: Pets 1.csv, test_share: 0.3}\ntrain: {epochs: 2}\n")
    run = client.train(recipe, target="b")
    assert isinstance(run, Run)
    assert state.run_request == {
        "recipe": {"name": "pets-1", "data": {"dataset": "pets-1:1", "test_share": 0.3}, "train": {"epochs": 2}},
        "target": "b",
    }
    assert list(state.uploads.values()) == [b"a,b\n1,2\n"]


TEXT = {"name": "text", "type": "text", "encoder": {"type": "textcnn"}}


def test_train_uploads_embeddings_and_sends_their_digest_for_their_path(
    client: Client, state: State, tmp_path: Path
) -> None:
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "v.txt").write_text("a 1 2\n")
    (tmp_path / "t.csv").write_text("text,label\n1,2\n")
    recipe = {"data": {"train": "t.csv"}, "inputs": [{**TEXT, "embeddings": {"file": "vectors/v.txt", "frozen": True}}]}
    client.train(recipe, folder=tmp_path)
    sent = state.run_request["recipe"]["inputs"][0]["embeddings"]
    assert sent == {"file": "v.txt", "frozen": True, "digest": sent["digest"]}
    assert state.uploads[sent["digest"]] == b"a 1 2\n"
    assert recipe["inputs"][0]["embeddings"] == {"file": "vectors/v.txt", "frozen": True}
    before = len(state.requests)
    again = {"data": {"dataset": "t:1"}, "inputs": [{**TEXT, "embeddings": sent}]}
    client.train(again)
    assert state.run_request["recipe"] == again
    assert len(state.requests) == before + 1


def test_train_looks_for_embeddings_before_anything_is_sent(client: Client, state: State, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n1,2\n")
    for file in ("none.txt", "."):
        with pytest.raises(InvalidInput, match="no such file"):
            client.train(
                {"data": {"train": "t.csv"}, "inputs": [{**TEXT, "embeddings": {"file": file}}]}, folder=tmp_path
            )
    assert state.requests == []


def test_train_checks_the_recipe_before_anything_is_sent(client: Client, state: State) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'epochs'"):
        client.train({"data": {"train": "x.csv"}, "train": {"epoch": 3}})
    with pytest.raises(InvalidInput, match=r"x\.csv: no such file"):
        client.train({"data": {"train": "x.csv"}})
    assert state.requests == []


def test_train_on_a_dataset_uploads_nothing(client: Client, state: State) -> None:
    client.train({"data": {"dataset": "pets:1"}})
    assert state.run_request["recipe"] == {"data": {"dataset": "pets:1"}}
    assert state.uploads == {}


def test_events_are_taken_up_where_the_connection_broke(client: Client, state: State) -> None:
    state.break_after = 4
    events = list(client.events(RUN))
    assert [each.sequence for each in events] == list(range(1, 10))
    assert isinstance(events[-1].event, RunFinished)
    asked = [request[2]["last-event-id"] for request in state.named("GET", f"/api/v1/runs/{RUN}/events")]
    assert asked == ["0", "4"]


def test_events_of_no_run_are_an_error_at_once(client: Client) -> None:
    with Client(client.url, "ym_wrong") as stranger, pytest.raises(Unauthenticated):
        next(iter(stranger.events(RUN)))


def test_references_find_a_version_by_number_alias_or_the_newest(client: Client) -> None:
    assert client.model("pets:1").version == 1
    assert client.model("pets@champion").version == 1
    assert client.model("pets").version == 2
    with pytest.raises(NotFound, match="pets@none"):
        client.model("pets@none")


def test_deploy_resolves_the_reference(client: Client, state: State) -> None:
    assert isinstance(client.deploy("pets@champion", "animals"), Endpoint)
    assert state.deployed == "pets:1"
    [(_, _, _, body)] = state.named("PUT", "/api/v1/endpoints/animals")
    assert json.loads(body) == {"model": "pets:1", "canary": None, "shadow": False}


def test_a_version_is_tried_as_a_canary_or_as_a_shadow(client: Client) -> None:
    tried = client.deploy("pets:2", canary=10)
    assert tried.canary is not None
    assert (tried.live.version, tried.live.weight, tried.canary.version, tried.canary.weight) == (1, 90, 2, 10)
    tried = client.deploy("pets:2", shadow=True)
    assert tried.shadow is not None
    assert (tried.live.weight, tried.canary, tried.shadow.version) == (100, None, 2)


def test_settings_that_are_left_out_are_not_sent_and_none_resets(client: Client, state: State) -> None:
    found = client.set_endpoint("pets", concurrency=8, timeout=0.5, sticky="key")
    assert (found.limits.concurrency, found.limits.queue, found.limits.timeout, found.sticky) == (8, None, 0.5, "key")
    assert client.set_endpoint("pets", concurrency=None).limits.concurrency is None
    bodies = [json.loads(request[3]) for request in state.named("PATCH", "/api/v1/endpoints/pets")]
    assert bodies == [{"concurrency": 8, "timeout": 0.5, "sticky": "key"}, {"concurrency": None}]


def test_export_writes_the_whole_file_or_none(client: Client, tmp_path: Path) -> None:
    target = tmp_path / "pets.yunmo"
    assert client.export("pets:1", target) == target
    assert target.read_bytes() == b"BUNDLE" * 1000
    with pytest.raises(NotFound):
        client.export("unknown:1", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["pets.yunmo"]


def test_predict_sends_rows_and_raw_bytes(client: Client, state: State) -> None:
    answers = client.predict("pets", [{"age": 1, "photo": b"\xff"}, {"age": None, "photo": b""}])
    assert [answer["label"]["value"] for answer in answers] == ["cat", "cat"]
    assert state.requests[-1][3] == b'[{"age":1,"photo":"/w=="},{"age":null,"photo":""}]'
    assert client.predict_raw("pets", b"JPEG", "image/jpeg")[0]["label"]["probability"] == 0.9
    assert state.requests[-1][2]["content-type"] == "image/jpeg"
    with pytest.raises(InvalidInput, match="JSON"):
        client.predict("pets", [{"age": object()}])


def test_everything_else_decodes(client: Client, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(b"B")
    assert client.runs()[0].id == client.run(RUN).id == client.cancel(RUN).id
    assert client.report(RUN)["name"] == "pets"
    assert client.report_html(RUN).startswith("<html>")
    assert client.log(RUN).startswith("what the process")
    assert client.datasets()[0].name == client.dataset("pets:1").name == "pets"
    assert [each.version for each in client.models()] == [1, 2]
    assert client.verify("pets:1").valid
    assert client.model_report("pets:1")["name"] == "pets"
    assert client.import_bundle(bundle).version == 3
    assert client.alias("pets:2", "champion").aliases == ["champion"]
    assert client.evaluate("pets:1", bundle)["accuracy"] == 0.9
    assert client.endpoints()[0].name == client.endpoint("pets").name == client.rollback("pets").name
    assert client.schema("pets")["input"]["type"] == "object"
    assert client.keys()[0].prefix == "abcdefgh"
    assert client.create_key("app").secret == KEY
    client.revoke_key("key_1")
    client.delete_endpoint("pets")


def test_names_are_quoted_into_paths(client: Client, state: State) -> None:
    with pytest.raises(YunmoError):
        client.run("../keys?x=1")
    assert state.requests[-1][1] == "/api/v1/runs/..%2Fkeys%3Fx%3D1"


def test_problem_documents_become_errors(client: Client) -> None:
    with Client(client.url, "ym_wrong") as stranger, pytest.raises(Unauthenticated) as caught:
        stranger.runs()
    assert caught.value.remedy == "Ask for another"


def test_the_key_is_in_no_message(client: Client) -> None:
    assert KEY not in repr(client)
    with pytest.raises(YunmoError) as caught:
        client.run("nothing")
    assert KEY not in f"{caught.value!r} {caught.value}"
    with Client("http://127.0.0.1:9", KEY) as gone, pytest.raises(Unavailable) as refused:
        gone.runs()
    assert KEY not in f"{refused.value!r} {refused.value}"
    assert refused.value.__cause__ is None
    with pytest.raises(InvalidInput) as bad:
        Client("http://127.0.0.1:9", KEY + "\n")
    assert KEY not in str(bad.value)


def test_nobody_there_says_how_to_start_the_service() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Unavailable, match="yunmo up"):
        client.runs()


def test_an_answer_that_takes_too_long(client: Client, state: State) -> None:
    state.slow = 0.5
    with Client(client.url, KEY, timeout=0.1) as hasty, pytest.raises(DeadlineExceeded, match=r"0\.1 seconds"):
        hasty.runs()


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "", "http://"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(InvalidInput, match="URL"):
        Client(url)


def test_a_unix_socket(state: State, tmp_path: Path) -> None:
    socket_path = tmp_path / "s"
    with serve(state, socket_path) as url, Client(url, KEY, uds=socket_path) as client:
        assert client.run(RUN).id == RUN


def test_the_asynchronous_client_does_the_same(client: Client, state: State, tmp_path: Path) -> None:
    (tmp_path / "pets.csv").write_text("a,b\n1,2\n")
    state.break_after = 3

    async def use() -> None:
        async with AsyncClient(client.url, KEY) as api:
            run = await api.train({"data": {"train": "pets.csv"}}, folder=tmp_path)
            assert run.id == RUN
            assert [each.sequence async for each in api.events(RUN)] == list(range(1, 10))
            assert (await api.deploy("pets")).live.version == 2
            assert (await api.set_endpoint("pets", queue=100)).limits.queue == 100
            assert (await api.predict("pets", [{"age": 1}]))[0]["label"]["value"] == "cat"
            assert (await api.export("pets:1", tmp_path / "b")).read_bytes() == b"BUNDLE" * 1000
            with pytest.raises(NotFound):
                await api.run("none")
            with pytest.raises(InvalidInput):
                await api.add_dataset("x", tmp_path / "none")

    asyncio.run(use())
    assert list(state.uploads.values()) == [b"a,b\n1,2\n"]


def test_every_function_of_the_api_is_a_method() -> None:
    functions = {
        name
        for name, value in vars(requests).items()
        if inspect.isfunction(value) and value.__module__ == requests.__name__ and not name.startswith("_")
    }
    for kind in (Client, AsyncClient):
        assert functions <= set(dir(kind))
        assert all(inspect.getdoc(getattr(kind, name)) for name in functions)


def test_it_needs_no_heavy_packages() -> None:
    program = """
import sys
for name in ("torch", "onnxruntime", "numpy", "fastapi", "sqlalchemy", "PIL"):
    sys.modules[name] = None
from yunmo.client.client import AsyncClient, Client
Client("http://127.0.0.1:9").close()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
