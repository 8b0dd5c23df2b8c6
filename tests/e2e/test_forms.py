"""Every form of data, from the file to the answer: trained, verified, deployed, and asked in every way."""

from __future__ import annotations

import base64
import csv
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.e2e.command import Home, Service, sha256
from tests.fixtures import data

from yunmo.cli.samples import write_stock
from yunmo.inference.predictor import Predictor

RECIPES = Path(__file__).parents[2] / "recipes"
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Data to train on, and rows to ask about."""

    source: Path
    options: Sequence[object]
    rows: list[Row]
    output: str
    """Name of the output."""


def picture(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def images(folder: Path) -> Case:
    """A folder to train on, and a tar.gz of another to test on."""
    source = data.digit_folder(folder / "images", 300)
    test = data.tarred(data.digit_folder(folder / "held-out", 100, start=400))
    rows = [{"image": picture(file)} for file in sorted(source.rglob("*.png"))[::20]]
    return Case(source, ("--test", test), rows, "label")


def classes(folder: Path) -> Case:
    rows = [
        {"age": 20, "spent": "1,200.50", "plan": "free", "joined": "2021-02-03"},
        {"age": None, "spent": 40.0, "plan": None, "joined": "2022-12-31"},
        {"age": "71", "spent": None, "plan": "a plan it never saw", "joined": None},
    ]
    folds = ("--set", "evaluate.cross_validation.folds=2")
    return Case(data.customers(folder / "customers.csv"), ("--target", "churned", *folds), rows, "churned")


def numbers(folder: Path) -> Case:
    rows = [{"area": 20.5, "rooms": 1, "city": "Berlin"}, {"area": 149, "rooms": 5, "city": None}]
    source = data.parquet(data.flats(folder / "flats.csv"))
    return Case(source, ("--target", "rent"), rows, "rent")


def table_of_pictures(folder: Path) -> Case:
    table = data.pictures_table(folder / "inked", 120)
    files = sorted((table.parent / "pictures").iterdir())[:5]
    rows = [{"picture": picture(file), "ink": 70 + index} for index, file in enumerate(files)]
    return Case(table, ("--target", "digit", "--name", "inked"), rows, "digit")


def arrays(folder: Path) -> Case:
    test = data.digits_npz(folder / "test.npz", 100, start=300)
    rows = [{"image": image.tolist()} for image in data.digits(3, start=500)[0]]
    source = data.digits_npz(folder / "arrays.npz", 300)
    return Case(source, ("--test", test, "--target", "label"), rows, "label")


def several(folder: Path) -> Case:
    """The recipe of several inputs on its own data."""
    source = write_stock(folder)
    with zipfile.ZipFile(source) as archive:
        count = base64.b64encode(archive.read("counts/0012.png")).decode()
    row = {"count": count, "note": "a van brought three", "reserve": 4, "box": "pair"}
    rows = [row, *({**row, name: None} for name in row), dict.fromkeys(row)]
    return Case(RECIPES / "several-inputs.yaml", ("--set", f"data.train={source}"), rows, "left")


def sequences(folder: Path) -> Case:
    source = data.waves_npz(folder / "waves.npz")
    motion = np.load(source)["motion"]
    rows = [{"motion": motion[0].tolist()}, {"motion": motion[1][:7].tolist()}]
    return Case(source, ("--target", "label"), rows, "label")


Make = Callable[[Path], Case]


@dataclass(frozen=True)
class Trained:
    """A case with what training made of it; its endpoint has the model's name."""

    case: Case
    run: Row
    report: Row

    @property
    def endpoint(self) -> str:
        return str(self.run["model"])

    @property
    def path(self) -> str:
        return f"/api/v1/endpoints/{self.endpoint}/predict"


@pytest.fixture(scope="module")
def trained(live: Service, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], Trained]:
    """Train and deploy a case, once for all tests."""
    folder = tmp_path_factory.mktemp("data")

    @cache
    def train(make: Make) -> Trained:
        case = make(folder)
        options = ("--set", "train.epochs=3", "--set", "train.precision=fp32")
        ended = live.home.train(case.source, *case.options, *options)
        live.home.ok("deploy", f"{ended['run']['model']}:{ended['run']['version']}")
        return Trained(case, ended["run"], ended["report"])

    return train


@pytest.mark.parametrize(
    "make",
    [images, classes, numbers, table_of_pictures, several, arrays, sequences],
    ids=lambda it: it.__name__,
)
def test_from_data_to_the_same_answers_everywhere(
    live: Service, tmp_path: Path, trained: Callable[[Make], Trained], make: Make
) -> None:
    model = trained(make)
    assert model.run["status"] == "succeeded"
    assert model.report["summary"] == model.run["summary"] != {}
    page = tmp_path / "report.html"
    live.home.ok("runs", "show", model.run["id"], "--html", page)
    assert "<svg" in page.read_text()
    reference = f"{model.endpoint}:{model.run['version']}"
    assert live.home.ok("models", "verify", reference, "--json").json["valid"] is True

    bill = tmp_path / "bom.json"
    live.home.ok("models", "show", reference, "--bom", bill)
    assert json.loads(bill.read_bytes()) == live.curl(f"/api/v1/models/{reference.replace(':', '/')}/bom")
    digests = {part["hashes"][0]["content"] for part in json.loads(bill.read_bytes())["components"] if "data" in part}
    assert digests == {digest.removeprefix("sha256:") for digest in model.report["data"]["digests"].values()}

    expected = offline(live.home, model.run, model.case.rows)
    asked = tmp_path / "rows.json"
    asked.write_text(json.dumps(model.case.rows))
    by_rest = live.curl(model.path, "-H", "content-type: application/json", "-d", f"@{asked}")["predictions"]
    by_command = live.home.ok("predict", model.endpoint, asked, "--json").json
    assert_same(by_rest, expected)
    assert_same([{output: answer[output] for output in expected[0]} for answer in by_command], expected)
    assert len({json.dumps(answer) for answer in expected}) > 1  # the answer depends on the question


def offline(home: Home, run: Row, rows: list[Row]) -> list[Row]:
    """Answer from the bundle alone, by ``Predictor`` and by the bare graph, which have to agree."""
    bundle = home.bundle(run)
    predictor = Predictor.open(bundle, public_key_pem=(home.path / "signing.pub").read_text())
    answers = predictor.predict(rows)
    graph = onnxruntime.InferenceSession(bundle / "graph.onnx")
    names = [output.name for output in graph.get_outputs()]
    bare = dict(zip(names, graph.run(names, predictor.encode(rows)), strict=True))
    assert_same(predictor.decode(bare), answers)
    return answers


def assert_same(answers: list[Row], expected: list[Row]) -> None:
    def numbers_of(rows: list[Row]) -> list[float]:
        found: list[float] = []
        for row in rows:
            for value in row.values():
                shares = value.get("probabilities")
                found += [shares[name] for name in sorted(shares)] if shares else [value["value"]]
        return found

    assert [sorted(row) for row in answers] == [sorted(row) for row in expected]
    assert numbers_of(answers) == pytest.approx(numbers_of(expected), rel=1e-5, abs=1e-5)


def test_a_picture_as_body_form_json_and_file_gets_one_answer(
    live: Service, trained: Callable[[Make], Trained]
) -> None:
    model = trained(images)
    file = next(iter(sorted(model.case.source.rglob("*.png"))))
    body = json.dumps({"image": picture(file)})
    answers = [
        live.curl(model.path, "-H", "content-type: image/png", "--data-binary", f"@{file}")["predictions"][0],
        live.curl(model.path, "-F", f"image=@{file}")["predictions"][0],
        live.curl(model.path, "-H", "content-type: application/json", "-d", body)["predictions"][0],
        {"label": live.home.ok("predict", model.endpoint, file, "--json").json[0]["label"]},
    ]
    assert_same(answers[1:], [answers[0]] * 3)


def test_a_form_holds_a_picture_beside_a_number(live: Service, trained: Callable[[Make], Trained]) -> None:
    model = trained(table_of_pictures)
    file = next(iter(sorted((model.case.source.parent / "pictures").iterdir())))
    by_form = live.curl(model.path, "-F", f"picture=@{file}", "-F", "ink=70.5")["predictions"]
    assert_same(by_form, offline(live.home, model.run, [{"picture": picture(file), "ink": 70.5}]))


def test_a_missing_input_is_an_empty_part_of_a_form_and_empty_bytes(
    live: Service, tmp_path: Path, trained: Callable[[Make], Trained]
) -> None:
    model = trained(several)
    rows = model.case.rows
    expected = offline(live.home, model.run, rows)
    (tmp_path / "count.png").write_bytes(base64.b64decode(rows[0]["count"]))
    for row, answer in zip(rows, expected, strict=True):
        texts = [f"{name}={'' if row[name] is None else row[name]}" for name in ("note", "reserve", "box")]
        parts = [f"count={'' if row['count'] is None else f'@{tmp_path}/count.png'}", *texts]
        assert_same(live.curl(model.path, *(word for part in parts for word in ("-F", part)))["predictions"], [answer])
    texts = [[row[name] or "" for row in rows] for name in ("count", "note", "box")]
    tensors = [
        {"name": name, "shape": [len(rows)], "datatype": kind, "data": values}
        for name, kind, values in (
            *zip(("count", "note", "box"), ("BYTES",) * 3, texts, strict=True),
            ("reserve", "FP32", [row["reserve"] for row in rows]),
        )
    ]
    asked = ("-H", "content-type: application/json", "-d", json.dumps({"inputs": tensors}))
    outputs = {
        each["name"]: each["data"] for each in live.curl(f"/v2/models/{model.endpoint}/infer", *asked)["outputs"]
    }
    assert outputs["left"] == pytest.approx([answer["left"]["value"] for answer in expected], rel=1e-5)
    assert outputs["order"] == [answer["order"]["value"] for answer in expected]


def test_several_outputs_are_evaluated(live: Service, trained: Callable[[Make], Trained]) -> None:
    model = trained(several)
    (_, setting) = model.case.options
    table = str(setting).removeprefix("data.train=")
    measured = live.home.ok("evaluate", f"stock:{model.run['version']}", table, "--json").json["outputs"]
    assert measured["left"]["rows"] == measured["order"]["rows"] == 1500
    assert 0 < measured["order"]["accuracy"] <= 1
    assert measured["left"]["rmse"] > 0


def test_cross_validation_is_in_the_report(live: Service, trained: Callable[[Make], Trained]) -> None:
    model = trained(classes)
    folds = model.report["cross_validation"]
    assert (folds["method"], folds["folds"]) == ("stratified", 2)
    held = model.report["data"]["rows"]["train"] + model.report["data"]["rows"]["validation"]
    assert sum(folds["rows"]) == held
    accuracy = folds["outputs"]["churned"]["accuracy"]
    assert accuracy["mean"] == pytest.approx(sum(accuracy["values"]) / 2)
    assert accuracy["deviation"] == pytest.approx(abs(accuracy["values"][0] - accuracy["values"][1]) / 2**0.5)
    assert "Cross-validation: churned (2 folds, stratified)" in live.home.ok("runs", "show", model.run["id"]).out


@pytest.mark.parametrize("make", [classes, table_of_pictures], ids=lambda it: it.__name__)
def test_a_table_is_answered_row_by_row_into_a_file(
    live: Service, tmp_path: Path, trained: Callable[[Make], Trained], make: Make
) -> None:
    model = trained(make)
    table, output, answers = model.case.source, model.case.output, tmp_path / "answers.csv"
    live.home.ok("predict", model.endpoint, table, "-o", answers)
    with table.open(newline="") as asked, answers.open(newline="") as answered:
        rows, found = list(csv.DictReader(asked)), list(csv.DictReader(answered))
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    assert {row[f"predicted_{output}"] for row in found} <= {row[output] for row in rows}
    expected = offline(live.home, model.run, [as_request(row, table.parent, output) for row in rows])
    shares = [float(row[f"{output}_probability"]) for row in found]
    assert shares == pytest.approx([answer[output]["probability"] for answer in expected], abs=1e-5)


@pytest.mark.parametrize("make", [classes, numbers, table_of_pictures], ids=lambda it: it.__name__)
def test_a_job_answers_a_dataset_as_the_command_answers_its_file(
    live: Service, tmp_path: Path, trained: Callable[[Make], Trained], make: Make
) -> None:
    model = trained(make)
    answers = tmp_path / "answers.csv"
    live.home.ok("predict", model.endpoint, model.case.source, "-o", answers)
    job = live.home.ok("jobs", "start", model.endpoint, model.run["dataset"], "--json").json
    assert (job["status"], job["done"]) == ("succeeded", job["rows"]), job["problem"]
    assert live.home.ok("jobs", "ls", model.endpoint, "--json").json == [job]
    made = live.home.ok("data", "show", job["output"], "--json").json["splits"]["train"]
    [kept] = (live.home.path / "artefacts").rglob(made["digest"].removeprefix("sha256:"))
    with answers.open(newline="") as by_command, kept.open(newline="") as by_job:
        expected, found = list(csv.DictReader(by_command)), list(csv.DictReader(by_job))
    assert [list(row) for row in found] == [list(row) for row in expected]
    exact = [name for name in found[0] if name != "predicted_rent" and not name.endswith("_probability")]
    assert [[row[name] for name in exact] for row in found] == [[row[name] for name in exact] for row in expected]
    for name in found[0].keys() - exact:
        assert [float(row[name]) for row in found] == pytest.approx([float(row[name]) for row in expected], rel=1e-4)


def as_request(row: dict[str, str], folder: Path, output: str) -> Row:
    cells = {name: cell or None for name, cell in row.items() if name != output}
    return {name: picture(folder / cell) if cell and cell.endswith(".png") else cell for name, cell in cells.items()}


def test_the_resolved_recipe_trained_again_gives_the_same_weights(
    live: Service, tmp_path: Path, trained: Callable[[Make], Trained]
) -> None:
    first = trained(numbers).run
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes((live.home.bundle(first) / "recipe.yaml").read_bytes())
    second = live.home.train(recipe)["run"]
    assert (second["model"], second["version"]) == (first["model"], first["version"] + 1)
    assert second["dataset"] == first["dataset"]
    assert second["resolved"] == first["resolved"]
    assert second["summary"] == first["summary"]
    weights = [sha256(live.home.bundle(run) / "weights.safetensors") for run in (first, second)]
    assert weights[0] == weights[1]
