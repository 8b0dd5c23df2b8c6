"""What a network has to beat: the majority class or the mean, and a linear model, on the same rows."""

from __future__ import annotations

import copy
import itertools
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]  # SciPy ships no types
from scipy.linalg import LinAlgWarning  # type: ignore[import-untyped]  # as above
from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]  # nor does scikit-learn
from sklearn.linear_model import Ridge  # type: ignore[import-untyped]  # as above
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # as above

from yunmo.core.fields import (
    CategoryField,
    CategoryOutput,
    FieldStatistics,
    ImageField,
    InputField,
    LabelsOutput,
    OutputField,
    TextField,
)
from yunmo.data.fields.text import READ
from yunmo.data.fields.words import normalized, words
from yunmo.training.budget import LINEAR_SECONDS
from yunmo.training.calibrate import LEAST_ROWS
from yunmo.training.data import TrainingData
from yunmo.training.evaluate import Predict, Tensors, evaluate, predict_split
from yunmo.training.logistic import Matrix, OneVsRest, fit_logistic
from yunmo.training.metrics import Floats, best_threshold, label_log_losses, log_losses

NUMBERS = 20_000_000
"""Rows times features that the linear model learns from: 80 MB."""
LARGEST_SIDE = 32
"""Pixels; larger pictures are averaged down for the linear model."""
MOST_STEPS = 256
MOST_CATEGORIES = 255
REGULARIZATION = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse strengths, from strong to weak; rows held out choose."""
CROSS_VALIDATED = 2_000_000
"""Up to so many numbers, 3-fold cross-validation helps to choose: a small validation split would choose by chance."""
FOLDS = 3
TEXT_REGULARIZATION = (1.0, 10.0, 30.0)
"""The same for texts, whose features are many and small."""
TEXTS = 200_000
"""Training texts from which words are taken."""
MOST_WORDS = 200_000
"""Words and pairs of words of a text, the most frequent."""
WORDS = 12
"""Words that the report shows for each class."""
_BATCH = 1024

Inputs = dict[str, Any]
"""By tensor: an array; by text field: its texts."""
Part = tuple[Matrix, NDArray[Any], Matrix, NDArray[Any]]
"""Features and truth to learn from, features and truth to choose by."""


def baselines(
    data: TrainingData, *, seconds: float = LINEAR_SECONDS, split: str = "test", seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Train and measure the baselines of every output.

    Args:
        data: prepared data with splits train, validation and the one to measure on.
        seconds: about how long the linear model of an output may take.
        split: where to measure.
        seed: of the rows drawn where there are too many, and of the bootstrap.

    Returns:
        By output: ``simple`` (the majority class, the labels that are most frequent, or the mean) and ``linear``
        (logistic regression, of labels one for each, or ridge regression), each with
        its ``name``, ``metrics`` (as `evaluate` gives them), ``seconds`` and ``notes``; the linear one also with
        ``rows`` and ``features`` it learned from, its ``regularization``, and of texts the ``words`` that weigh most.
    """
    found: dict[str, dict[str, Any]] = {}
    for output in data.recipe.outputs or ():
        truth = {output.name: np.asarray(data.outputs(split)[output.name])}

        def measure(output: OutputField, predicted: Tensors, truth: Tensors = truth) -> dict[str, Any]:
            return evaluate([output], data.statistics, truth, predicted, seed=seed)[output.name]

        began = time.monotonic()
        name, judged, predict = _simple(output, data)
        simple = {
            "name": name,
            "metrics": measure(judged, predict_split(predict, data.inputs(split), batch=4096)),
            "seconds": time.monotonic() - began,
            "notes": [],
        }
        began = time.monotonic()
        linear = _Linear(output, data, seconds=seconds, seed=seed)
        found[output.name] = {
            "simple": simple,
            "linear": {
                "name": linear.name,
                "metrics": measure(linear.output, linear.predict_all(_inputs(data, split))),
                "seconds": time.monotonic() - began,
                "rows": linear.rows,
                "features": linear.features,
                "regularization": linear.regularization,
                "notes": linear.notes,
                "words": linear.words(),
            },
        }
    return found


def _inputs(data: TrainingData, split: str) -> Inputs:
    """Return the encoded inputs of a split, but texts as they came."""
    inputs: Inputs = dict(data.inputs(split))
    if any(isinstance(spec, TextField) for spec in data.recipe.inputs or ()):
        inputs |= data.texts(split)
    return inputs


def _labels(output: CategoryOutput | LabelsOutput, data: TrainingData) -> tuple[str, ...]:
    return output.categories or data.statistics[output.name].categories


def _vectorizer(spec: TextField) -> TfidfVectorizer:
    """Return the usual strong bag of words: pairs of words, too, and the logarithm of counts.

    A Chinese character is a word.
    """

    def terms(text: str) -> list[str]:
        found = words(normalized(text[:READ], spec.normalize, spec.lowercase))
        return [*found, *(f"{first} {second}" for first, second in itertools.pairwise(found))]

    return TfidfVectorizer(analyzer=terms, sublinear_tf=True, max_features=MOST_WORDS, dtype=np.float32)


def _simple(output: OutputField, data: TrainingData) -> tuple[str, OutputField, Predict]:
    """Answer every row alike: with the shares of the classes or labels in training, or the mean.

    Returns:
        What it is called, the output (of labels with the threshold that fits these answers best), and what answers.
    """
    truth = np.asarray(data.outputs("train")[output.name])
    if isinstance(output, CategoryOutput):
        answer = np.bincount(truth, minlength=len(_labels(output, data))) / len(truth)
        name = "majority class"
    elif isinstance(output, LabelsOutput):
        answer = truth.mean(0, dtype=np.float64)
        name = "most frequent labels"
        output = _decided(output, truth, np.broadcast_to(answer, truth.shape))
    else:
        answer = truth.astype(np.float64).mean()
        name = "mean"

    def predict(inputs: Tensors) -> Tensors:
        rows = len(next(iter(inputs.values())))
        return {output.name: np.broadcast_to(answer, (rows, *answer.shape))}

    return name, output, predict


def _decided(output: LabelsOutput, truth: NDArray[Any], probabilities: Floats) -> LabelsOutput:
    """Return the output with the threshold that fits a model's answers best, as the network has one that fits its."""
    return msgspec.structs.replace(output, threshold=best_threshold(truth.astype(np.bool_), probabilities)[0])


@dataclass
class _Block:
    """One input as columns of a matrix: how it is flattened and scaled."""

    spec: InputField
    kept: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Of a category with very many values: the codes that get a column of their own."""
    mean: Any = 0.0
    deviation: Any = 1.0
    vectorizer: Any = None
    """Of a text: scikit-learn's TF-IDF of its words and pairs of words."""

    def flat(self, values: NDArray[Any]) -> Floats:
        """Return float32 ``(rows, columns)``, not yet scaled."""
        if isinstance(self.spec, CategoryField):
            one_hot: Floats = (values[:, None] == self.kept).astype(np.float32)
            return one_hot
        values = values.astype(np.float32)
        if isinstance(self.spec, ImageField):
            values = _averaged(_averaged(values / 255, 1, LARGEST_SIDE), 2, LARGEST_SIDE)
        elif values.ndim == 3:
            values = _averaged(values, 1, MOST_STEPS)
        flat: Floats = values.reshape(len(values), -1)
        return flat

    def columns(self, values: Any) -> Matrix:
        """Return float32 ``(rows, columns)``, scaled."""
        if isinstance(self.spec, TextField):
            return self.vectorizer.transform(values)
        values = np.asarray(values)
        scaled: Floats = (self.flat(values) - self.mean) / self.deviation
        return scaled

    def fit(self, values: NDArray[Any], statistics: FieldStatistics) -> None:
        """Learn scales (pictures: one in all, so that dark corners stay dark; others: one a column)."""
        if isinstance(self.spec, CategoryField):
            known = len(statistics.categories or self.spec.categories or ())
            counts = np.bincount(values, minlength=known + 1)
            self.kept = np.sort(np.argsort(-counts, kind="stable")[: MOST_CATEGORIES + 1])
            return
        flat = self.flat(values)
        axis = None if isinstance(self.spec, ImageField) else 0
        deviation = flat.std(axis, dtype=np.float64)
        self.mean = flat.mean(axis, dtype=np.float64).astype(np.float32)
        self.deviation = np.where(deviation > 1e-7, deviation, 1.0).astype(np.float32)


def _averaged(values: Floats, axis: int, most: int) -> Floats:
    """Average neighbours along an axis so that at most so many places are left; a rest at the end is its own place."""
    length = values.shape[axis]
    if length <= most:
        return values
    starts = np.arange(0, length, -(-length // most))
    sizes = np.diff(np.append(starts, length)).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = len(starts)
    averaged: Floats = np.add.reduceat(values, starts, axis=axis) / sizes.reshape(shape)
    return averaged


class _Linear:
    """Logistic or ridge regression on the encoded inputs of the training split."""

    def __init__(self, output: OutputField, data: TrainingData, *, seconds: float, seed: int) -> None:
        self.output = output
        self.notes: list[str] = []
        several = isinstance(output, LabelsOutput)
        self.name = "ridge regression"
        if isinstance(output, (CategoryOutput, LabelsOutput)):
            self.name = "logistic regression of each label" if several else "logistic regression"
        self._blocks = [_Block(spec) for spec in data.recipe.inputs or ()]
        self._labels = _labels(output, data) if isinstance(output, (CategoryOutput, LabelsOutput)) else ()
        self._classes = len(self._labels)
        texts = any(isinstance(block.spec, TextField) for block in self._blocks)
        self._strengths = TEXT_REGULARIZATION if texts else REGULARIZATION
        deadline = time.monotonic() + seconds
        truth, inputs = np.asarray(data.outputs("train")[output.name]), _inputs(data, "train")
        rows = self._choose_rows(truth, inputs, data.statistics, seed)
        matrix = self._matrix({name: values[rows] for name, values in inputs.items()})
        self.rows, self.features = matrix.shape
        held_truth, held = np.asarray(data.outputs("validation")[output.name]), _inputs(data, "validation")
        held_matrix = self._matrix({name: values[: len(rows)] for name, values in held.items()})
        truth, held_truth = truth[rows], held_truth[: len(rows)]
        self._center, self._unit = 0.0, 1.0
        if not self._classes:
            self._center, self._unit = float(truth.mean()), float(truth.std()) or 1.0
            truth, held_truth = (truth - self._center) / self._unit, (held_truth - self._center) / self._unit
        parts = [(matrix, truth, held_matrix, held_truth)]
        if matrix.size <= CROSS_VALIDATED:
            parts += _folds(matrix, truth, seed)
        # On small matrices BLAS threads cost more than they give: three times as long with 2 cores, ten when shared.
        with threadpool_limits(1 if matrix.size <= CROSS_VALIDATED else None):
            self.regularization, start = self._choose(parts, deadline)
            self._model, converged = self._fit(matrix, truth, self.regularization, start, deadline)
        if not converged:
            self.notes.append("the solver had not fully converged")
        if isinstance(output, LabelsOutput) and len(held_truth) >= LEAST_ROWS:
            self.output = _decided(output, held_truth, self._probabilities(self._model, held_matrix))

    def _choose_rows(
        self, truth: NDArray[Any], inputs: Inputs, statistics: Mapping[str, FieldStatistics], seed: int
    ) -> NDArray[np.int64]:
        """Fit the blocks on some rows, then draw as many rows as memory and time allow, some of every class."""
        order = np.random.default_rng(seed).permutation(len(truth))
        some = np.sort(order[:2000])
        for block in self._blocks:
            values = inputs[block.spec.name]
            if isinstance(block.spec, TextField):
                block.vectorizer = _vectorizer(block.spec).fit(values[np.sort(order[:TEXTS])])
            else:
                block.fit(np.asarray(values[some]), statistics[block.spec.name])
        # Of a sparse matrix, the size is the numbers that are not 0.
        sample = self._matrix({name: values[some] for name, values in inputs.items()})
        most = max(200, NUMBERS * len(some) // max(1, sample.size))
        if len(truth) <= most:
            return np.arange(len(truth))
        self.notes.append(f"learned from {most:,} of {len(truth):,} training rows, drawn at random")
        if self._classes and truth.ndim == 1:
            first = np.unique(truth[order], return_index=True)[1]
            order = np.concatenate((order[first], np.delete(order, first)))
        return np.sort(order[:most])

    def _matrix(self, inputs: Inputs) -> Matrix:
        columns = [block.columns(inputs[block.spec.name]) for block in self._blocks]
        if any(isinstance(block.spec, TextField) for block in self._blocks):
            return sparse.hstack([sparse.csr_matrix(each) for each in columns], format="csr", dtype=np.float32)
        return np.concatenate(columns, axis=1)

    def words(self) -> dict[str, list[dict[str, Any]]]:
        """Return the words and pairs of words that weigh most for each class, or for more and for less of a number."""
        place, found = 0, []
        for block in self._blocks:
            if isinstance(block.spec, TextField):
                names = block.vectorizer.get_feature_names_out()
                found.append((names, slice(place, place + len(names))))
                place += len(names)
            else:
                place += len(block.mean) if np.ndim(block.mean) else max(1, len(block.kept))
        if not found:
            return {}
        names = np.concatenate([each for each, _ in found])
        weights = np.atleast_2d(self._model.coef_)
        weights = np.concatenate([weights[:, columns] for _, columns in found], axis=1)
        if len(weights) == 1 and not isinstance(self.output, LabelsOutput):
            weights = np.concatenate((-weights, weights))
        labels = self._labels if self._classes else ("less", "more")
        kinds = [labels[place] for place in self._model.classes_] if self._classes else labels
        return {
            kind: [{"word": str(names[index]), "weight": float(row[index])} for index in np.argsort(-row)[:WORDS]]
            for kind, row in zip(kinds, weights, strict=True)
        }

    def _choose(self, parts: list[Part], deadline: float) -> tuple[float, Any]:
        """Fit from strong to weak regularization, each from the last one's weights, until held-out rows get worse.

        Returns:
            The strength with the lowest loss over all held-out rows, and the model of the first part that it gave.
        """
        models: list[Any] = [None] * len(parts)
        best, worse, chosen = np.inf, 0, (self._strengths[0], None)
        for strength in self._strengths:
            models = [
                self._fit(matrix, truth, strength, model, deadline)[0]
                for model, (matrix, truth, _, _) in zip(models, parts, strict=True)
            ]
            losses = [
                self._losses(model, matrix, truth) for model, (_, _, matrix, truth) in zip(models, parts, strict=True)
            ]
            loss = float(np.concatenate(losses).mean())
            worse += 1
            if loss < best:
                best, worse = loss, 0
                chosen = (strength, copy.deepcopy(models[0]))  # the next fit changes the model
            if time.monotonic() > deadline:
                self.notes.append("stopped for time before every strength of regularization was tried")
                break
            if worse == 2:
                break
        return chosen

    def _losses(self, model: Any, matrix: Matrix, truth: NDArray[Any]) -> Floats:
        """Return the log loss, or the squared error on the scaled target, of each row."""
        if truth.ndim > 1:
            return label_log_losses(truth.astype(np.bool_), self._probabilities(model, matrix))
        if self._classes:
            return log_losses(truth, self._probabilities(model, matrix))
        errors: Floats = (model.predict(matrix) - truth) ** 2
        return errors

    def _fit(
        self, matrix: Matrix, truth: NDArray[Any], strength: float, model: Any, deadline: float
    ) -> tuple[Any, bool]:
        """Fit, from the weights of a model if one is given, and say whether the solver converged."""
        if truth.ndim > 1:
            model = model or OneVsRest(self._classes)
            return model, model.fit(matrix, truth, strength, deadline)
        if self._classes:
            return fit_logistic(matrix, truth, strength, model, deadline)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinAlgWarning)
            return Ridge(alpha=1 / strength).fit(matrix, truth), True

    def _probabilities(self, model: Any, matrix: Matrix) -> Floats:
        answers = np.zeros((matrix.shape[0], self._classes))
        answers[:, model.classes_] = model.predict_proba(matrix)
        return answers

    def predict_all(self, inputs: Inputs) -> Tensors:
        """Answer all rows, as `predict_split` does."""
        rows = len(next(iter(inputs.values())))
        parts = [
            self.predict({name: values[start : start + _BATCH] for name, values in inputs.items()})
            for start in range(0, rows, _BATCH)
        ]
        return {self.output.name: np.concatenate([part[self.output.name] for part in parts])}

    def predict(self, inputs: Inputs) -> Tensors:
        """Answer as the network would: probabilities, or numbers in the unit of the target."""
        matrix = self._matrix(inputs)
        if self._classes:
            return {self.output.name: self._probabilities(self._model, matrix)}
        return {self.output.name: np.asarray(self._model.predict(matrix), np.float64) * self._unit + self._center}


def _folds(matrix: Matrix, truth: NDArray[Any], seed: int) -> list[Part]:
    """Split for cross-validation; folds whose training rows would be of one kind only are left out."""
    place = np.random.default_rng(seed).permutation(len(truth)) % FOLDS
    # Of labels, each has a model of its own, which can do with one kind.
    several = truth.ndim > 1
    return [
        (matrix[place != fold], truth[place != fold], matrix[place == fold], truth[place == fold])
        for fold in range(FOLDS)
        if (several or np.ptp(truth[place != fold]) > 0) and (place == fold).any()
    ]
