"""Models from elsewhere: the routes of docs/import-onnx.md as they stand there, from the file to an answer."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.e2e.command import Home, Service
from tests.fixtures.onnx_files import linear, save, unary

from yunmo.client.client import Client

PAGE = Path(__file__).resolve().parents[2] / "docs" / "import-onnx.md"
SKL2ONNX = "skl2onnx==1.20.0"


def section(title: str) -> dict[str, str]:
    """Return the code blocks of a section by language."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.S | re.M))


def route(title: str, python: str, home: Home, folder: Path) -> None:
    """Do what a section says: its Python, its fields file, and its commands but the last."""
    blocks = section(title)
    subprocess.run([python, "-c", blocks["python"]], cwd=folder, check=True, capture_output=True, timeout=300)
    fields = blocks["yaml"]
    (folder / fields.split("\n")[0].removeprefix("# ")).write_text(fields)
    for line in blocks["sh"].strip().splitlines()[:-1]:
        home.ok(*line.split()[1:], cwd=folder)


def last_command(title: str) -> list[str]:
    return section(title)["sh"].strip().splitlines()[-1].split()[1:]


def test_the_pytorch_route(home: Home, tmp_path: Path) -> None:
    route("PyTorch", sys.executable, home, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.jpg")
    (row,) = home.ok(*last_command("PyTorch"), "--json", cwd=tmp_path).json
    assert row["label"]["value"] in ("cat", "dog")
    assert np.isclose(sum(row["label"]["probabilities"].values()), 1)


@pytest.fixture(scope="session")
def with_skl2onnx(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment of its own that has skl2onnx."""
    folder = tmp_path_factory.mktemp("skl2onnx") / "venv"
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    constraints = PAGE.parents[1] / "constraints.txt"
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", str(constraints), SKL2ONNX]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        pytest.skip(f"skl2onnx could not be installed (is PyPI reached?): {done.stderr.strip().splitlines()[-1:]}")
    return python


def test_the_scikit_learn_route(home: Home, tmp_path: Path, with_skl2onnx: str) -> None:
    from sklearn.datasets import load_iris

    route("scikit-learn", with_skl2onnx, home, tmp_path)
    iris = load_iris()
    rows, species = iris.data[::10], iris.target_names[iris.target[::10]]
    with (tmp_path / "flowers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sepal_length", "sepal_width", "petal_length", "petal_width"])
        writer.writerows(rows.tolist())
    answers = home.ok(*last_command("scikit-learn"), "--json", cwd=tmp_path).lines
    predicted = [row["species"]["value"] for row in answers]
    assert np.mean(np.array(predicted) == species) > 0.9


def test_tensors_without_a_description_through_the_service(live: Service, tmp_path: Path) -> None:
    home = live.home
    file = save(linear(), tmp_path / "scores.onnx")
    found = home.ok("models", "import", file, "--name", "scores-live", "--json").json
    assert (found["model"], found["version"]) == ("scores-live", 1)
    home.ok("deploy", "scores-live")
    with Client(live.url, home.key) as client:
        (row,) = client.predict("scores-live", [{"x": [0.5, -1.0, 2.0, 0.25]}])
        assert len(row["scores"]["value"]) == 3
        assert client.schema("scores-live")["input"]["properties"]["x"]["maxItems"] == 4


def test_a_bundle_and_an_onnx_file_are_told_apart(home: Home, tmp_path: Path) -> None:
    home.ok("models", "import", save(linear(), tmp_path / "a.onnx"))
    home.ok("models", "export", "a:1", tmp_path / "bundle.onnx")  # its name does not matter
    assert "Imported a:1" in home.ok("models", "import", tmp_path / "bundle.onnx").out
    line = home.refused("models", "import", tmp_path / "bundle.onnx", "--name", "b")
    assert "a bundle brings its own name" in line


@pytest.mark.parametrize(
    ("content", "fields", "words"),
    [
        (b"no model", None, "no ONNX file, or a damaged one"),
        (b"", None, "no ONNX file, or a damaged one"),
        (linear().SerializeToString()[:100], None, "no ONNX file, or a damaged one"),
        (unary("RandomUniformLike").SerializeToString(), None, "answers at random"),
        (linear().SerializeToString(), "inputs: [", "not valid YAML"),
        (linear().SerializeToString(), "- a", "not a mapping"),
        (linear().SerializeToString(), "inptus: []", "Did you mean 'inputs'?"),
    ],
    ids=["text", "empty", "truncated", "random", "no YAML", "a list", "unknown key"],
)
def test_a_bad_file_gets_one_line(content: bytes, fields: str | None, words: str, home: Home, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    (tmp_path / "fields.yaml").write_text(fields or "")
    more = ("--fields", tmp_path / "fields.yaml") if fields else ()
    line = home.refused("models", "import", tmp_path / "bad.onnx", *more)
    assert words in line
    assert home.registered()[0] == []


def test_a_file_that_is_not_there(home: Home, tmp_path: Path) -> None:
    assert "no such file" in home.refused("models", "import", tmp_path / "none.onnx")
