from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from yunmo.core.encoders import (
    BagEncoder,
    CnnEncoder,
    ConvLayer,
    EmbeddingEncoder,
    FlatEncoder,
    MlpEncoder,
    PoolLayer,
    ResnetEncoder,
    RnnEncoder,
    TextCnnEncoder,
    TransformerEncoder,
)
from yunmo.core.fields import (
    CategoryField,
    CategoryOutput,
    DateField,
    FieldStatistics,
    ImageField,
    InputField,
    LabelsOutput,
    NumberField,
    NumberOutput,
    OutputField,
    SequenceField,
    TextField,
    VectorField,
)
from yunmo.core.recipe import CombineSpec, DataSpec, Recipe
from yunmo.core.tokenizers import NgramTokenizer, SubwordTokenizer
from yunmo.data.fields.registry import open_field, open_output
from yunmo.models.network import Network
from yunmo.training.evaluate import evaluate
from yunmo.training.report import make_report

ROWS = 6


@dataclass
class Trained:
    """A network with random weights, and all that packing needs beside it."""

    recipe: Recipe
    statistics: dict[str, FieldStatistics]
    examples: list[dict[str, Any]]
    weights: Path
    report: dict[str, Any] = field(default_factory=dict)


def columns() -> dict[str, list[Any]]:
    """Raw values of every type of field, as a request holds them."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(ROWS):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(buffer, "PNG")
        pictures.append(base64.b64encode(buffer.getvalue()).decode())
    return {
        "image": pictures,
        "age (years)": [31.5, 40.0, None, 22.0, 65.0, 48.0],
        "city": ["Berlin", "Beijing", "Berlin", None, "Beijing", "Rome"],
        "born": ["2001-02-03", "1999-12-31", None, "1985-06-07", "2010-01-01", "1970-01-01"],
        "steps": [rng.normal(size=(length, 2)).round(3).tolist() for length in (5, 3, 1, 5, 4, 2)],
        "vector": rng.normal(size=(ROWS, 4)).round(3).tolist(),
        "words": ["A cat, of course.", "the dog", "", "一只狗", "cat cat", "🐟 fish 鱼"],
        "label": ["cat", "dog", "fish", "dog", "cat", "fish"],
        "topics": ["a;b", "", "b", "c; a", "a", "c"],
        "price": [10.0, 2000.0, 350.5, 12.0, 77.0, 1500.0],
    }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Trained]:
    """Return a function that makes a network for input and output specifications, "trained" on `columns`."""

    def trained(
        *inputs: InputField, outputs: tuple[OutputField, ...] = (), combine: CombineSpec | None = None
    ) -> Trained:
        values = columns()
        outputs = outputs or (CategoryOutput(name="label", categories=("cat", "dog", "fish")),)
        statistics = {spec.name: open_field(spec).fit(values[spec.name]) for spec in inputs}
        statistics |= {spec.name: open_output(spec).fit(values[spec.name]) for spec in outputs}
        recipe = Recipe(name="pets", data=DataSpec(train="pets.csv"), inputs=inputs, outputs=outputs, combine=combine)
        torch.manual_seed(0)
        network = Network(recipe, statistics).eval()
        rows = [{spec.name: values[spec.name][row] for spec in inputs} for row in range(ROWS)]
        tensors: dict[str, Any] = {}
        for spec in inputs:
            tensors |= open_field(spec, statistics[spec.name]).encode(values[spec.name])
        network.fit({name: torch.from_numpy(value) for name, value in tensors.items()})
        weights = tmp_path / "weights.safetensors"
        save_file(network.state_dict(), weights)
        truth: dict[str, Any] = {}
        for output in outputs:
            truth |= open_output(output, statistics[output.name]).encode(values[output.name])
        with torch.no_grad():
            answers = network.predict({name: torch.from_numpy(value) for name, value in tensors.items()})
        test = evaluate(outputs, statistics, truth, {name: answer.numpy() for name, answer in answers.items()})
        report = make_report(
            name="pets",
            recipe=recipe,
            statistics=statistics,
            rows={"train": 40, "validation": 5, "test": ROWS},
            cleaning={},
            decisions=[],
            history=[],
            test=test,
            validation=test,
            baselines={},
            timing={},
            created=0.0,
        )
        return Trained(recipe, statistics, rows, weights, report)

    return trained


def image(encoder: Any, *, average_flips: bool = False) -> ImageField:
    return ImageField(name="image", size=(8, 8), color="rgb", encoder=encoder, average_flips=average_flips)


def steps(encoder: Any) -> SequenceField:
    return SequenceField(name="steps", length=5, encoder=encoder)


def text(encoder: Any) -> TextField:
    bag = isinstance(encoder, BagEncoder)
    tokenizer = NgramTokenizer(seen=1) if bag else SubwordTokenizer(vocabulary=40)
    return TextField(name="words", tokenizer=tokenizer, embedding=6, encoder=encoder)


def table() -> tuple[InputField, ...]:
    return (
        NumberField(name="age (years)", encoder=FlatEncoder()),
        CategoryField(name="city", categories=("Beijing", "Berlin"), encoder=EmbeddingEncoder(size=2)),
        DateField(name="born", format="%Y-%m-%d", encoder=MlpEncoder(hidden=(4,))),
        VectorField(name="vector", encoder=FlatEncoder()),
    )


WHITENED = ResnetEncoder(
    filters=(6, 4, 8),
    blocks=(0, 1, 1),
    block="one",
    stem="whitened",
    start="identity",
    norm_scale=False,
    activation="gelu",
)
TOPICS = (LabelsOutput(name="topics", categories=("a", "b", "c"), threshold=0.4),)
BOTH = (CategoryOutput(name="label", categories=("cat", "dog", "fish")), NumberOutput(name="price"))

NETWORKS: dict[str, tuple[tuple[InputField, ...], tuple[OutputField, ...]]] = {
    "resnet": ((image(ResnetEncoder(filters=(4, 8), blocks=(0, 1)), average_flips=True),), BOTH[:1]),
    "whitened": ((image(WHITENED, average_flips=True),), BOTH[:1]),
    "cnn": ((image(CnnEncoder(layers=(ConvLayer(conv=3), PoolLayer(pool="max")))),), BOTH[:1]),
    "rows of a picture": ((image(RnnEncoder(cell="rnn", activation="relu", hidden=4)),), BOTH[:1]),
    "table": (table(), BOTH),
    "picture and table": ((image(FlatEncoder()), *table()), BOTH[1:]),
    "labels of a text": ((text(BagEncoder(size=4)), *table()[:1]), (*TOPICS, *BOTH)),
    "labels of a picture": ((image(FlatEncoder(), average_flips=True),), TOPICS),
    "rnn": ((steps(RnnEncoder(cell="rnn", hidden=4)),), BOTH[:1]),
    "lstm": ((steps(RnnEncoder(cell="lstm", hidden=4, bidirectional=True, pool="mean")),), BOTH[:1]),
    "gru": ((steps(RnnEncoder(cell="gru", hidden=4, pool="max")), *table()[:1]), BOTH),
    "bag of n-grams": ((text(BagEncoder(size=4)),), BOTH[:1]),
    "words in order": ((text(RnnEncoder(hidden=4, bidirectional=True, pool="mean_max")), *table()[:1]), BOTH),
    "attention pooling": ((text(RnnEncoder(cell="lstm", hidden=4, pool="attention")),), BOTH[:1]),
    "textcnn": ((text(TextCnnEncoder(filters=3, widths=(2, 7))),), BOTH[:1]),
    "transformer": ((text(TransformerEncoder(heads=3, feed_forward=8)),), BOTH[:1]),
    "transformer, learned positions": (
        (text(TransformerEncoder(size=4, heads=2, positions="learned", norm="post", pool="attention")),),
        BOTH[:1],
    ),
    "transformer over steps": ((steps(TransformerEncoder(size=4, heads=2, positions="sinusoidal")),), BOTH[:1]),
    "fixed length": ((steps(MlpEncoder(hidden=(4,))),), BOTH[:1]),
}
