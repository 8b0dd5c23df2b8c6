"""Reports on made-up predictions, for tests."""

import numpy as np

from yunmo.core.events import Decision, EpochFinished
from yunmo.core.fields import CategoryOutput, FieldStatistics, LabelsOutput, NumberOutput, VectorField
from yunmo.core.recipe import DataSpec, EvaluateSpec, Recipe, TrainSpec
from yunmo.training.evaluate import evaluate
from yunmo.training.report import make_report


def epochs(values):
    best = float("-inf")
    history = []
    for place, value in enumerate(values, 1):
        history.append(
            EpochFinished(
                epoch=place,
                epochs=len(values),
                train_loss=1 / place,
                validation_loss=1.1 / place,
                metric="accuracy",
                value=value,
                best=value > best,
                lr=0.1,
                seconds=1.0,
            )
        )
        best = max(best, value)
    return history


def classified(categories, rows=120, noise=1.0, seed=0):
    random = np.random.default_rng(seed)
    truth = random.integers(len(categories), size=rows)
    scores = np.exp(noise * random.normal(size=(rows, len(categories))) + 2 * np.eye(len(categories))[truth])
    statistics = FieldStatistics(
        name="label", type="category", role="output", encode_version=1, count=rows, categories=tuple(categories)
    )
    return evaluate(
        [CategoryOutput(name="label")],
        {"label": statistics},
        {"label": truth},
        {"label": scores / scores.sum(1, keepdims=True)},
    )["label"]


def estimated(rows=100, noise=0.3, seed=0):
    random = np.random.default_rng(seed)
    truth = random.normal(size=rows) * 100
    statistics = FieldStatistics(name="price", type="number", role="output", encode_version=1, count=rows)
    return evaluate(
        [NumberOutput(name="price")],
        {"price": statistics},
        {"price": truth},
        {"price": truth + noise * 100 * random.normal(size=rows)},
    )["price"]


def against(linear, simple):
    extra = {"seconds": 0.5, "rows": 300, "features": 7, "regularization": 1.0, "notes": ["a note"]}
    return {
        "simple": {"name": "majority class", "metrics": simple, "seconds": 0.1, "notes": []},
        "linear": {"name": "logistic regression", "metrics": linear, **extra},
    }


def report_of(tests, *, name="pets", history=None, metrics=(), keep="best", with_baselines=True, cleaning=None):
    of_type = {"category": CategoryOutput, "labels": LabelsOutput, "number": NumberOutput}
    kinds = {key: of_type[values["type"]] for key, values in tests.items()}
    recipe = Recipe(
        data=DataSpec(train="pets.zip", digests={"train": "sha256:ab"}),
        inputs=(VectorField(name="size"),),
        outputs=tuple(kind(name=key) for key, kind in kinds.items()),
        evaluate=EvaluateSpec(metrics=metrics),
        train=TrainSpec(keep=keep),
    )
    return make_report(
        name=name,
        recipe=recipe,
        statistics={},
        rows={"train": 300, "validation": 40, "test": 120},
        cleaning=cleaning or {"read": {"train": 460}, "kept": {}, "issues": []},
        decisions=[Decision("train.epochs", "5", "as many as fit")],
        history=epochs([0.5, 0.8, 0.7]) if history is None else history,
        test=tests,
        validation=tests,
        baselines={key: against(values, values) for key, values in tests.items()} if with_baselines else {},
        timing={"train": 12.0},
        created=1_700_000_000.0,
    )
