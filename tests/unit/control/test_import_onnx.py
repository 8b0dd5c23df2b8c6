"""Importing ONNX files over REST: what comes of a good one, and that a bad one leaves nothing, whatever it does."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.fixtures.bundles import writable
from tests.fixtures.onnx_files import FLOAT, WIDTH, array, linear, model, value
from tests.unit.control.service import Api, problem

from yunmo.control.context import Context
from yunmo.control.services import models as service


def send(api: Api, made: onnx.ModelProto | bytes, **keys: Any) -> Any:
    content = made if isinstance(made, bytes) else made.SerializeToString()
    digest = api.post("/uploads", content=content).json()["digest"]
    return api.post("/models/import", {"file": {"digest": digest, "filename": "My Model.onnx"}, **keys})


def nothing_is_left(api: Api, context: Context) -> bool:
    home = context.workspace.home
    return (
        api.get("/models").json() == []
        and not list((home / "bundles").iterdir())
        and not list(context.workspace.temporary_folder.iterdir())
    )


def test_a_good_file_becomes_a_signed_version(api: Api, context: Context) -> None:
    answer = send(api, linear())
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["model"], found["version"], found["run_id"]) == ("my-model", 1, None)
    assert api.get("/models/my-model/1/verify").json()["valid"]
    assert api.get("/models/my-model/1/report").json()["origin"] == "imported"
    assert "SHA-256" in api.get("/models/my-model/1/report", headers={"accept": "text/html"}).text
    assert not list(context.workspace.temporary_folder.iterdir())
    exported = api.get("/models/my-model/1/bundle").content
    assert api.post("/models", content=exported).json()["version"] == 1


def test_the_same_file_is_the_same_version_and_another_the_next(api: Api) -> None:
    assert send(api, linear()).json()["version"] == 1
    assert send(api, linear()).json()["version"] == 1
    assert send(api, linear(seed=1)).json()["version"] == 2
    assert send(api, linear(), name="other").json()["model"] == "other"


def test_a_large_model_keeps_its_weights_file_when_it_is_exported_and_imported(api: Api, context: Context) -> None:
    large = linear()
    large.graph.node[0].input[0] = "more"
    large.graph.node.insert(0, helper.make_node("Add", ["x", "zero"], ["more"]))
    large.graph.node.insert(0, helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0))
    large.graph.initializer.append(array("zeros", np.zeros(9 * 2**20, np.float32)))
    found = send(api, large).json()
    folder = context.workspace.bundle_folder(found["digest"])
    assert (folder / "graph.bin").stat().st_size >= 36 * 2**20
    exported = api.get("/models/my-model/1/bundle").content
    shutil.rmtree(writable(folder))
    again = api.post("/models", content=exported).json()
    assert (again["version"], again["digest"]) == (1, found["digest"])
    assert stat.S_IMODE((folder / "graph.bin").stat().st_mode) == 0o444
    assert api.get("/models/my-model/1/verify").json()["valid"]
    assert not list(context.workspace.temporary_folder.iterdir())


def test_fields_come_with_the_request(api: Api) -> None:
    fields = {"outputs": [{"name": "label", "type": "category", "categories": ["a", "b", "c"], "from": "logits"}]}
    assert send(api, linear(), fields=fields).status_code == 201


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"name": "No Name"}, "invalid_input"),
        ({"fields": {"inptus": []}}, "invalid_input"),
        ({"fields": {"inputs": [{"name": "x", "type": "image"}]}}, "invalid_input"),
        ({"unknown": 1}, "invalid_input"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(keys: dict[str, Any], code: str, api: Api, context: Context) -> None:
    problem(send(api, linear(), **keys), 422, code)
    assert nothing_is_left(api, context)


def test_a_file_that_was_not_uploaded_is_not_found(api: Api) -> None:
    file = {"digest": "sha256:" + "0" * 64, "filename": "x.onnx"}
    problem(api.post("/models/import", {"file": file}), 404, "not_found")


def test_a_reader_may_not_import(context: Context) -> None:
    problem(Api(context, "read").post("/models/import", {"file": {"digest": "x", "filename": "x"}}), 403, "forbidden")


def test_a_bad_file_leaves_nothing(api: Api, context: Context) -> None:
    refused = problem(send(api, b"no model"), 422, "invalid_bundle")
    assert refused["remedy"]
    assert nothing_is_left(api, context)


def memory_bomb() -> onnx.ModelProto:
    """Return a model of 300 bytes that asks for 64 GB."""
    return model(
        [
            helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["x", "zero"], ["y"]),
        ],
        inputs=[value("x")],
        outputs=[value("y")],
        initializers=[array("huge", np.array([2**34], np.int64))],
    )


def wide_input() -> onnx.ModelProto:
    """Return a model whose rows have 2^40 numbers each."""
    return model(
        [helper.make_node("ReduceSum", ["x", "axis"], ["y"])],
        inputs=[value("x", ["n", 2**40])],
        outputs=[value("y", ["n", 1])],
        initializers=[array("axis", np.array([1], np.int64))],
    )


def time_bomb() -> onnx.ModelProto:
    """Return a model that goes 2^60 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["go_on"]), helper.make_node("Add", ["sum", "x"], ["more"])],
        "body",
        [value("i", [], TensorProto.INT64), value("going", [], TensorProto.BOOL), value("sum", None)],
        [value("go_on", [], TensorProto.BOOL), value("more", None)],
    )
    return model(
        [helper.make_node("Loop", ["rounds", "true", "x"], ["y"], body=body)],
        inputs=[value("x", ["n", WIDTH], FLOAT)],
        outputs=[value("y", None)],
        initializers=[array("rounds", np.array(2**60, np.int64)), array("true", np.array(True))],
    )


@pytest.mark.parametrize("bomb", [memory_bomb, wide_input, time_bomb])
def test_a_bomb_ends_with_its_own_process(
    bomb: Any, api: Api, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_IMPORT_SECONDS", 6)
    refused = problem(send(api, bomb()), 422, "invalid_bundle")
    assert refused["remedy"]
    assert "/" not in refused["detail"]
    assert nothing_is_left(api, context)


LOOK = """
import sys
{}
found = sorted(name for name in ("torch", "onnx", "onnxscript", "jinja2", "sklearn") if name in sys.modules)
assert found == {}, found
"""


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import yunmo.control.rest.app, yunmo.control.services.models, yunmo.app.control_process", []),
        ("import yunmo.app.worker, yunmo.inference.predictor, yunmo.data.fields.registry", []),
        (
            "from pathlib import Path; from yunmo.packaging.imported.pack import pack_imported\n"
            "from yunmo.packaging.imported.description import Description\n"
            "pack_imported(Path({file!r}), Path({folder!r}), name='x', description=Description())",
            ["onnx"],
        ),
    ],
    ids=["control", "data worker", "import"],
)
def test_processes_load_what_they_need(code: str, loaded: list[str], tmp_path: Path) -> None:
    file = tmp_path / "x.onnx"
    file.write_bytes(linear().SerializeToString())
    code = code.format(file=str(file), folder=str(tmp_path / "bundle"))
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(code, loaded)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
