import csv
import json
import time

import msgspec
import numpy as np
import pytest
from sklearn import datasets

from yunmo.core.fields import (
    CategoryField,
    CategoryOutput,
    DateField,
    FieldStatistics,
    ImageField,
    NumberField,
    NumberOutput,
    SequenceField,
    VectorField,
)
from yunmo.core.recipe import DataSpec, Recipe
from yunmo.data.prepare import prepare
from yunmo.training import baselines as module
from yunmo.training.baselines import baselines


class Arrays:
    """Encoded data in memory: the shape of prepared data."""

    decisions = ()

    def __init__(self, inputs, output, columns, truth, categories=()):
        self.recipe = Recipe(data=DataSpec(train="data.npz"), inputs=tuple(inputs), outputs=(output,))
        self.statistics = {
            field.name: FieldStatistics(name=field.name, type="", role="input", encode_version=1, count=len(truth))
            for field in inputs
        }
        self.statistics[output.name] = FieldStatistics(
            name=output.name, type="", role="output", encode_version=1, count=len(truth), categories=tuple(categories)
        )
        self._columns, self._truth = columns, {output.name: truth}
        order = np.random.default_rng(0).permutation(len(truth))
        parts = np.split(order, [int(len(truth) * 0.6), int(len(truth) * 0.75)])
        self._split = dict(zip(("train", "validation", "test"), parts, strict=True))
        self.rows = {name: len(rows) for name, rows in self._split.items()}

    def inputs(self, split):
        return {name: values[self._split[split]] for name, values in self._columns.items()}

    def outputs(self, split):
        return {name: values[self._split[split]] for name, values in self._truth.items()}


def numbers(rows=400, seed=0):
    return np.random.default_rng(seed).normal(size=rows).astype(np.float32)


def test_breast_cancer_end_to_end(tmp_path):
    cancer = datasets.load_breast_cancer()
    with (tmp_path / "cancer.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*cancer.feature_names, "diagnosis"])
        writer.writerows(
            [*row, cancer.target_names[kind]] for row, kind in zip(cancer.data, cancer.target, strict=True)
        )
    recipe = Recipe(data=DataSpec(train="cancer.csv"))
    data = prepare(recipe, {"train": tmp_path / "cancer.csv"}, tmp_path / "prepared", target="diagnosis")
    found = baselines(data)["diagnosis"]
    json.dumps(found, allow_nan=False)
    assert found["simple"]["metrics"]["accuracy"] == pytest.approx(0.63, abs=0.03)
    assert found["linear"]["metrics"]["accuracy"] > 0.92
    assert found["linear"]["features"] == 30
    assert found["linear"]["rows"] == data.rows["train"]
    assert found["linear"]["metrics"]["rows"] == data.rows["test"]


def test_digits_end_to_end(tmp_path):
    digits = datasets.load_digits()
    np.savez(tmp_path / "digits.npz", image=(digits.images * 15).astype(np.uint8), label=digits.target.astype(str))
    recipe = Recipe(data=DataSpec(train="digits.npz"))
    data = prepare(recipe, {"train": tmp_path / "digits.npz"}, tmp_path / "prepared", target="label")
    found = baselines(data)["label"]
    assert found["simple"]["metrics"]["accuracy"] < 0.15
    assert found["linear"]["metrics"]["accuracy"] > 0.94


def test_every_kind_of_input_is_used():
    rows, random = 600, np.random.default_rng(0)
    columns = {
        "picture": random.integers(256, size=(rows, 4, 4, 1)).astype(np.uint8),
        "color": random.integers(4, size=rows),
        "day": random.normal(size=(rows, 6)).astype(np.float32),
        "steps": random.normal(size=(rows, 5, 2)).astype(np.float32),
        "steps_length": np.full(rows, 5),
        "vector": random.normal(size=(rows, 3)).astype(np.float32) * 1000,
        "number": random.normal(size=rows).astype(np.float32),
    }
    truth = (
        columns["picture"][:, 1, 2, 0] / 100
        + np.array([0, 5, -3, 1])[columns["color"]]
        + columns["day"][:, 3]
        + columns["steps"][:, 4, 1]
        + columns["vector"][:, 0] / 500
        + columns["number"]
    )
    inputs = [
        ImageField(name="picture"),
        CategoryField(name="color", categories=("r", "g", "b")),
        DateField(name="day"),
        SequenceField(name="steps"),
        VectorField(name="vector"),
        NumberField(name="number"),
    ]
    found = baselines(Arrays(inputs, NumberOutput(name="y"), columns, truth.astype(np.float32)))["y"]
    assert found["linear"]["features"] == 16 + 4 + 6 + 10 + 3 + 1
    assert found["linear"]["metrics"]["r2"] > 0.99
    assert abs(found["simple"]["metrics"]["r2"]) < 0.05


def test_useless_inputs_are_regularized_strongly():
    random = np.random.default_rng(0)
    noise = random.normal(size=(300, 80)).astype(np.float32)
    data = Arrays([VectorField(name="x")], CategoryOutput(name="y"), {"x": noise}, random.integers(2, size=300), "ab")
    found = baselines(data)["y"]["linear"]
    assert found["regularization"] <= 0.01
    assert found["metrics"]["log_loss"] < 0.75


def test_large_data_are_sampled_with_every_class_and_the_report_says_so(monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 300)
    x = numbers(2000)
    truth = (x > 0).astype(np.int64)
    truth[:40] = 2
    data = Arrays([NumberField(name="x")], CategoryOutput(name="y"), {"x": x}, truth, "abc")
    found = baselines(data)["y"]["linear"]
    assert found["rows"] == 300
    assert found["notes"] == ["learned from 300 of 1,200 training rows, drawn at random"]
    assert found["metrics"]["accuracy"] > 0.9


def test_large_pictures_are_averaged_down():
    pictures = np.zeros((200, 70, 100, 3), np.uint8)
    truth = np.arange(200) % 2
    pictures[truth == 1, 30:] = 200
    data = Arrays([ImageField(name="x")], CategoryOutput(name="y"), {"x": pictures}, truth, "ab")
    found = baselines(data)["y"]["linear"]
    assert found["features"] == 24 * 25 * 3
    assert found["metrics"]["accuracy"] == 1


def test_very_many_categories_keep_the_frequent_ones():
    rows = 1500
    codes = np.random.default_rng(0).integers(1, 1000, size=rows)
    codes[:700] = 7
    truth = (codes == 7).astype(np.int64)
    data = Arrays([CategoryField(name="x")], CategoryOutput(name="y"), {"x": codes}, truth, "ab")
    data.statistics["x"] = msgspec.structs.replace(
        data.statistics["x"], categories=tuple(f"c{code}" for code in range(1000))
    )
    found = baselines(data)["y"]["linear"]
    assert found["features"] == module.MOST_CATEGORIES + 1
    assert found["metrics"]["accuracy"] > 0.95


def test_a_class_that_only_the_test_has_gets_probability_0():
    x = numbers(100)
    data = Arrays([NumberField(name="x")], CategoryOutput(name="y"), {"x": x}, (x > 0).astype(np.int64), "abc")
    found = baselines(data)["y"]
    assert found["linear"]["metrics"]["per_class"]["c"]["support"] == 0
    assert found["linear"]["metrics"]["accuracy"] > 0.9


def test_it_stops_for_time_and_says_so():
    random = np.random.default_rng(0)
    x = random.normal(size=(4000, 200)).astype(np.float32)
    data = Arrays([VectorField(name="x")], CategoryOutput(name="y"), {"x": x}, random.integers(5, size=4000), "abcde")
    began = time.monotonic()
    found = baselines(data, seconds=0.0)["y"]["linear"]
    assert time.monotonic() - began < 30
    assert "stopped for time before every strength of regularization was tried" in found["notes"]
    assert found["regularization"] == module.REGULARIZATION[0]


def test_the_same_seed_gives_the_same_figures():
    x = numbers()
    data = Arrays([NumberField(name="x")], NumberOutput(name="y"), {"x": x}, x + numbers(seed=1))
    first, second = (baselines(data, seed=3)["y"]["linear"]["metrics"] for _ in range(2))
    assert first == second


def texts_csv(path, rows=400):
    random = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "age", "label"])
        for index in range(rows):
            good = index % 2
            word = random.choice(["lovely", "brilliant"] if good else ["dull", "awful"])
            name = "".join(random.choice(list("bcdfgaeiou"), 5))
            writer.writerow([f"the {word} film of {name} and {index}", index * 7 % 31, "good" if good else "bad"])
    return path


def test_texts_have_a_linear_model_of_their_words(tmp_path):
    path = texts_csv(tmp_path / "reviews.csv")
    data = prepare(Recipe(data=DataSpec(train="reviews.csv")), {"train": path}, tmp_path / "prepared", target="label")
    found = baselines(data)["label"]["linear"]
    json.dumps(found, allow_nan=False)
    assert found["metrics"]["accuracy"] == 1
    assert found["rows"] == data.rows["train"]
    assert list(found["words"]) == ["bad", "good"]
    assert {entry["word"] for entry in found["words"]["bad"][:2]} <= {
        "dull",
        "awful",
        "the dull",
        "the awful",
        "dull film",
        "awful film",
    }
    weights = [entry["weight"] for entry in found["words"]["good"]]
    assert weights == sorted(weights, reverse=True)


def test_texts_beside_a_number_explain_a_number(tmp_path):
    path = texts_csv(tmp_path / "reviews.csv")
    data = prepare(Recipe(data=DataSpec(train="reviews.csv")), {"train": path}, tmp_path / "prepared", target="age")
    found = baselines(data)["age"]["linear"]
    assert found["metrics"]["type"] == "number"
    assert list(found["words"]) == ["less", "more"]


def test_texts_of_prepared_data_are_as_they_came(tmp_path):
    path = tmp_path / "a.csv"
    cells = [f"Ünï 猫 {index}, of  the CITY" for index in range(60)]
    path.write_text("text,label\n" + "".join(f'"{cell}",{"ab"[index % 2]}\n' for index, cell in enumerate(cells)))
    data = prepare(Recipe(data=DataSpec(train="a.csv")), {"train": path}, tmp_path / "prepared", target="label")
    kept = {split: data.texts(split)["text"] for split in ("train", "validation", "test")}
    assert [len(texts) for texts in kept.values()] == [data.rows[split] for split in kept]
    assert sorted(text for texts in kept.values() for text in texts[:]) == sorted(cells)
    assert kept["test"][np.array([1, 0])] == kept["test"][:2][::-1]
    assert [row["text"] for row in data.examples[:1]] == kept["test"][:1]
