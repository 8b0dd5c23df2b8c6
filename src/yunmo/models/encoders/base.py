"""What every encoder is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Turns one field's scaled tensor into features.

    Attributes:
        features: length of the feature vector.
    """

    features: int

    def fit(self, values: Tensor) -> None:
        """Compute what is not trained from a sample of training data, once, before the first step.

        Args:
            values: as for `forward`.
        """

    @abstractmethod
    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:
        """Encode a batch.

        Args:
            values: float32 pictures ``[N, C, H, W]``, sequences ``[N, T, C]``, vectors, dates and numbers ``[N, F]``;
                int64 categories ``[N]``; token numbers of texts int32 ``[N, T]`` for `bag`, embedded ones as sequences.
            length: int64 ``[N]``, real steps of each sequence or text; steps beyond are padding.

        Returns:
            ``[N, features]``
        """
