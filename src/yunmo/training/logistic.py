"""Logistic regression within a time: of one class of several, or of each of several labels."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]  # scikit-learn ships no types
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # as above

from yunmo.training.metrics import Floats

ITERATIONS = 25
"""Steps of the solver between two looks at the clock."""
ROUNDS = 12

Matrix = Any
"""Features of rows: float32 ``(rows, columns)``, sparse (CSR) if there are texts."""


def fit_logistic(
    matrix: Matrix, truth: NDArray[Any], strength: float, model: Any, deadline: float
) -> tuple[LogisticRegression, bool]:
    """Fit by L-BFGS, a few steps at a time, from the weights of a model if one is given; say whether it converged."""
    model = model or LogisticRegression(warm_start=True, max_iter=ITERATIONS)
    model.set_params(C=strength)
    for _ in range(ROUNDS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(matrix, truth)
        if model.n_iter_.max() < ITERATIONS:
            return model, True
        if time.monotonic() > deadline:
            break
    return model, False


class OneVsRest:
    """A logistic regression for each of several labels, on the same features.

    A label that all training rows have, or none, is answered with its share, as is one for which no time was left.
    (scikit-learn's OneVsRestClassifier knows no clock, and begins anew at every fit.)
    """

    def __init__(self, labels: int) -> None:
        self._models: list[Any] = [None] * labels
        self._shares: Floats = np.zeros(labels)

    def fit(self, matrix: Matrix, truth: NDArray[Any], strength: float, deadline: float) -> bool:
        """Fit each label's model, from its last weights if it has some; say whether all converged.

        Args:
            matrix: features.
            truth: 0 or 1, ``(rows, labels)``.
            strength: inverse strength of regularization.
            deadline: `time.monotonic` from which no further model is fitted.
        """
        # Laplace's rule of succession: what was never seen is not impossible.
        self._shares = (truth.sum(0, dtype=np.float64) + 1) / (len(truth) + 2)
        converged = True
        for label in range(len(self._models)):
            column = truth[:, label]
            if column.min() == column.max():
                continue
            if time.monotonic() > deadline:
                converged = False
                break
            self._models[label], done = fit_logistic(matrix, column, strength, self._models[label], deadline)
            converged = converged and done
        return converged

    def predict_proba(self, matrix: Matrix) -> Floats:
        """Return the probability of each label, ``(rows, labels)``."""
        answers = np.empty((matrix.shape[0], len(self._models)))
        for label, model in enumerate(self._models):
            answers[:, label] = self._shares[label] if model is None else model.predict_proba(matrix)[:, 1]
        return answers

    @property
    def classes_(self) -> NDArray[np.int64]:
        """The labels in the order of the columns of `predict_proba`."""
        return np.arange(len(self._models))

    @property
    def coef_(self) -> Floats:
        """Weights ``(labels, features)``; 0 where a label has no model."""
        known = [model.coef_[0] for model in self._models if model is not None]
        width = len(known[0]) if known else 0
        return np.stack([np.zeros(width) if model is None else model.coef_[0] for model in self._models])
