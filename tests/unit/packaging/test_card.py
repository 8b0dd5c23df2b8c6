from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from tests.unit.packaging.conftest import BOTH, NETWORKS, Trained, table

from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.bundle.read import Golden
from yunmo.packaging.card import render_card

Make = Callable[..., Trained]


def card(trained: Trained, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "name": "pets",
        "recipe": trained.recipe,
        "statistics": trained.statistics,
        "report": trained.report,
        "tensors": Tensors(
            inputs=(Tensor(name="x", dtype="float32", shape=(None, 2)),),
            outputs=(Tensor(name="y", dtype="float32", shape=()),),
        ),
        "golden": Golden(rows=tuple(trained.examples), answers={}),
    }
    return render_card(**arguments | changes)


def front_matter(text: str) -> dict[str, Any]:
    _, matter, _ = text.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(matter)
    return loaded


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("cnn", "image-classification"),
        ("table", None),
        ("picture and table", None),
        ("gru", None),
        ("textcnn", "text-classification"),
        ("words in order", None),
    ],
)
def test_the_front_matter_is_what_the_hub_reads(make: Make, kind: str, task: str | None) -> None:
    inputs, outputs = NETWORKS[kind]
    matter = front_matter(card(make(*inputs, outputs=outputs)))
    assert matter["library_name"] == "yunmo"
    assert matter["license"] == "other"
    assert matter.get("pipeline_tag") == task
    (model,) = matter["model-index"]
    assert model["name"] == "pets"
    assert len(model["results"]) == len(outputs)
    for result in model["results"]:
        assert result["dataset"]["split"] == "test"
        assert all(isinstance(metric["value"], float) for metric in result["metrics"])
        assert {"accuracy", "rmse"} & {metric["type"] for metric in result["metrics"]}


def test_a_table_has_its_own_tasks(make: Make) -> None:
    assert front_matter(card(make(*table(), outputs=BOTH[:1])))["pipeline_tag"] == "tabular-classification"
    assert front_matter(card(make(*table(), outputs=BOTH[1:])))["pipeline_tag"] == "tabular-regression"


def test_results_stand_in_tables_with_intervals(make: Make) -> None:
    trained = make(*table(), outputs=BOTH)
    text = card(trained)
    accuracy = trained.report["test"]["label"]["accuracy"] * 100
    assert re.search(rf"^\| Accuracy \| {accuracy:.1f} % \([\d.]+ to [\d.]+\) \|", text, re.MULTILINE)
    assert "| Root mean squared error |" in text
    assert "### price" in text
    assert "| `x` | float32 | rows, any, 2 |" in text
    assert "\n\n\n" not in text


def test_baselines_and_the_verdict_are_beside_the_network(make: Make) -> None:
    trained = make(*table())
    own = trained.report["test"]["label"]
    trained.report["baselines"] = {
        "label": {
            "simple": {"name": "majority class", "metrics": own | {"accuracy": 0.25}},
            "linear": {"name": "logistic regression", "metrics": own | {"accuracy": 0.5}},
        }
    }
    trained.report["verdicts"] = {"label": {"sentence": "A linear model is as good: use it"}}
    text = card(trained)
    assert "| metric | this model | Logistic regression | Majority class |" in text
    assert re.search(r"^\| Accuracy \| .* \| 50\.0 % .* \| 25\.0 % .* \|$", text, re.MULTILINE)
    assert "A linear model is as good: use it." in text


def test_names_from_data_cannot_break_the_page(make: Make) -> None:
    trained = make(*table())
    trained.report["decisions"] = [{"key": "a|b", "value": "<script>", "reason": "`x`\n# heading"}]
    text = card(trained)
    assert "<script>" not in text
    assert "`a\\|b`: &lt;script&gt; ('x' # heading)" in text


def test_the_example_request_is_safe_in_a_shell_and_short(make: Make) -> None:
    trained = make(*table())
    golden = Golden(rows=({"city": "L'Aquila", "picture": "x" * 5000},), answers={})
    (line,) = [line for line in card(trained, golden=golden).splitlines() if line.startswith("curl")]
    assert line == """curl --json '{"city": "L\\u0027Aquila", "picture": "…"}' \\"""
