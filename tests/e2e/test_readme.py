"""What the README shows is what happens: its commands and its Python are run as they stand."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
PORT = "8080"
YUNMO = str(Path(sys.executable).with_name("yunmo"))


def blocks(language: str, readme: str = "README.md") -> list[str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)


def commands(readme: str = "README.md") -> list[str]:
    """Every command of the README's shell blocks, but those that install and call this very test."""
    joined = "\n".join(blocks("sh", readme)).replace("\\\n", " ")
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("make ")]


def linear_onnx(seed: int) -> bytes:
    """Return an ONNX file with a softmax over a linear layer, as any framework writes it."""
    weight = np.random.default_rng(seed).normal(size=(4, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"]), helper.make_node("Softmax", ["y"], ["p"], axis=1)],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with the names that the README uses. Handwritten threes and eights stand in for cats and dogs."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    digits = load_digits()
    with zipfile.ZipFile(folder / "pets.zip", "w") as archive:
        for digit, name in ((3, "cat"), (8, "dog")):
            for number, pixels in enumerate(digits.images[digits.target == digit]):
                buffer = io.BytesIO()
                Image.fromarray((pixels * 15).astype("uint8")).resize((16, 16)).save(buffer, "JPEG")
                archive.writestr(f"{name}/{number}.jpg", buffer.getvalue())
                if number == 0 and name == "cat":
                    (folder / "cat.jpg").write_bytes(buffer.getvalue())
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(
            [f"review {number}: a {('dull', 'fine')[number % 2]} film, 好", ("bad", "good")[number % 2]]
            for number in range(120)
        )
    chance = random.Random(0)  # noqa: S311  data, not secrets
    rows = []
    for _ in range(240):
        age, plan = chance.randint(18, 80), chance.choice(["basic", "pro"])
        since = f"20{chance.randint(15, 24)}-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}"
        left = (age > 45) + (plan == "basic") + chance.random() > 1.5
        rows.append({"age": age, "plan": plan, "since": since, "churned": "yes" if left else "no"})
    for name, part in (("churn.csv", rows), ("rows.csv", rows[:20])):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(part)
    row = {"age": 41, "plan": "pro", "since": "2024-05-01"}
    (folder / "row.json").write_text(json.dumps(row))
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}
        for name, value in row.items()
    ]
    (folder / "infer.json").write_text(json.dumps({"inputs": inputs}))
    for name, seed in (("fraud", 0), ("better", 1)):
        (folder / f"{name}.onnx").write_bytes(linear_onnx(seed))
    return folder


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("YUNMO_")}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": programs, "YUNMO_HOME": str(folder / ".yunmo"), "YUNMO_WORKERS": "1", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def services() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for service in started:
        service.terminate()
        service.communicate(timeout=60)
        assert service.returncode == 0


def start(folder: Path, environment: dict[str, str], services: list[subprocess.Popen[str]]) -> tuple[str, str]:
    """Start the service on a free port; return the port and the key that it shows."""
    with (folder / "up.log").open("w") as log:
        service = subprocess.Popen(
            [YUNMO, "up", "--port", "0"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    services.append(service)
    assert service.stdout is not None
    answers = re.search(r"http://127\.0\.0\.1:(\d+)", service.stdout.readline())
    key = re.search(r"ym_\S+", service.stdout.readline())
    assert answers is not None
    assert key is not None
    return answers[1], key[0]


def test_every_command_of_the_tour_works(
    folder: Path, environment: dict[str, str], services: list[subprocess.Popen[str]]
) -> None:
    assert commands(), "the README shows no command"
    outputs: dict[str, str] = {}
    port = PORT
    for command in commands():
        if command == "yunmo up":
            port, environment["YUNMO_API_KEY"] = start(folder, environment, services)
            continue
        line = command.replace("--budget 5m", "--budget 5s").replace(f":{PORT}/", f":{port}/")
        if line.startswith("curl"):
            line = line.replace("curl", "curl --silent --show-error --fail-with-body")
        done = subprocess.run(
            ["/bin/bash", "-c", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        outputs[command] = done.stdout
    pets, churn, infer, metrics = (output for command, output in outputs.items() if command.startswith("curl"))
    assert json.loads(pets)["predictions"][0]["label"]["value"] == "cat"
    assert json.loads(churn)["endpoint"] == "churn"
    assert json.loads(infer)["model_name"] == "churn"
    assert "yunmo_requests_total{" in metrics
    assert len((folder / "answers.csv").read_text().splitlines()) == 21
    python_block(folder, environment, port)


def python_block(folder: Path, environment: dict[str, str], port: str) -> None:
    [code] = blocks("python")
    code = f"import os\nkey = os.environ['YUNMO_API_KEY']\n{code.replace(f':{PORT}', f':{port}')}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cat" in done.stdout
    assert "churned" in done.stdout


def test_the_chinese_page_shows_the_same_commands() -> None:
    assert commands("README.zh-CN.md") == commands()


@pytest.mark.parametrize(
    "page", ["README.md", "README.zh-CN.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{page}: {target}"
