"""Texts: normalised, split into tokens, and numbered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from yunmo.core import fields as specs
from yunmo.core import tokenizers
from yunmo.core.encoders import BagEncoder, PretrainedEncoder
from yunmo.core.errors import BundleError, DataError, InvalidInput
from yunmo.core.events import Decision
from yunmo.core.fields import FieldStatistics
from yunmo.core.pretrained import LEAST_LENGTH
from yunmo.data.fields.base import Cleaned, Field, TensorSpec, Values, Where, Wire, is_missing, shown
from yunmo.data.fields.tokenizers import Learned, open_tokenizer
from yunmo.data.fields.words import normalized

if TYPE_CHECKING:
    from yunmo.data.pretrained.folder import Content

READ = 32_768
"""Characters of a text that are read; what follows is left out, as are tokens beyond the field's length."""
MOST_TOKENS = 8192
_MOST_IN_ORDER, _MOST_NGRAMS = 256, 1024
_SHARE = 99.0
"""Percent of the training texts that are kept whole."""
_SAMPLE = 20_000


class TextField(Field):
    """A text, padded with zeros; longer texts are cut at the end.

    Args:
        spec: what the recipe says of it.
        statistics: what training learned of it; None before `fit`.
        pretrained: what comes with its encoder, which `fit` keeps; None: the encoder is not pretrained.
    """

    MEDIA_TYPES = ("text/plain",)
    spec: specs.TextField

    def __init__(
        self,
        spec: specs.TextField,
        statistics: FieldStatistics | None = None,
        *,
        pretrained: Content | None = None,
    ) -> None:
        super().__init__(spec, statistics)
        self._length = 0
        self._pretrained = pretrained
        if statistics is None:
            return
        if spec.tokenizer is None or len(statistics.shape) != 1 or not 1 <= statistics.shape[0] <= MOST_TOKENS:
            raise BundleError("a text without tokenizer or length", where=f"field {spec.name}")
        self._tokenizer = open_tokenizer(spec.tokenizer, statistics)
        self._length = statistics.shape[0]

    def resolve(self, values: Values, where: Where) -> tuple[TextField, list[Decision]]:  # noqa: ARG002
        """Choose the tokenizer for the encoder."""
        if isinstance(self.spec.encoder, PretrainedEncoder):
            return self._with_pretrained()
        if self.spec.tokenizer is not None:
            return self, []
        chosen: tokenizers.Tokenizer = tokenizers.NgramTokenizer()
        reason = "n-grams of words and characters: as good for Chinese as for English"
        if self.spec.encoder is not None and not isinstance(self.spec.encoder, BagEncoder):
            chosen = tokenizers.WordTokenizer()
            reason = "the encoder reads tokens in their order"
        field = TextField(msgspec.structs.replace(self.spec, tokenizer=chosen))
        key = f"inputs.{self.name}.tokenizer"
        return field, [Decision(key=key, value=str(chosen.__struct_config__.tag), reason=reason)]

    def clean(self, values: Values, where: Where) -> Cleaned:
        """Find missing texts; drop their rows if the recipe says so.

        Raises:
            DataError: a value that is no text.
        """
        missing = np.zeros(len(values), np.bool_)
        for row, value in enumerate(values):
            try:
                missing[row] = not self.text(value)
            except InvalidInput as error:
                raise DataError(error.message, where=f"{where(row)}, field {self.column}") from None
        rows = np.flatnonzero(missing)
        if self.spec.missing == "drop":
            return Cleaned(~missing, self.issue("missing", "row dropped", rows, where))
        return Cleaned(np.ones(len(values), np.bool_), self.issue("missing", "counts as an empty text", rows, where))

    def fit(self, values: Values) -> FieldStatistics:
        """Learn the tokens, and how many of them a text is given.

        Raises:
            DataError: there is nothing to learn: every text is empty, or no token occurs often enough.
        """
        spec = self.spec if self.spec.tokenizer is not None else self.resolve(values, str)[0].spec
        if spec.tokenizer is None:  # never: `resolve` chose one
            raise InvalidInput("no tokenizer", where=f"field {self.name}")
        learned = self._learned(spec.tokenizer, values)
        if not learned.get("pieces") and not learned.get("buckets"):
            raise DataError(
                "no text has a token that occurs often enough to be learned",
                where=f"field {self.column}",
                remedy="Give more texts, or a tokenizer with seen: 1",
            )
        statistics = FieldStatistics(
            name=self.name,
            type="text",
            role="input",
            encode_version=self.ENCODE_VERSION,
            count=len(values),
            missing=sum(not text for text in self._normalized(values)),
            shape=(MOST_TOKENS,),
            **learned,
        )
        length = spec.length or self._usual_length(spec.tokenizer, statistics, values)
        return msgspec.structs.replace(statistics, shape=(length,))

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """Return ``{name: int32 [rows, tokens], name_length: int64 [rows]}``; a text has at least length 0."""
        self.known()
        batch = np.zeros((len(values), self._length), np.int32)
        lengths = np.empty(len(values), np.int64)
        for row, value in enumerate(values):
            try:
                text = self.text(value)
            except InvalidInput as error:
                raise self.refuse(error.message, row, remedy=error.remedy) from None
            if not text and self.spec.missing == "drop":
                raise self.refuse("the text is missing", row, remedy="Send a string that is not empty")
            tokens = self._tokenizer.tokens(text)[: self._length]
            batch[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return {self.name: batch, f"{self.name}_length": lengths}

    def text(self, value: Any) -> str:
        """Return a raw value as the text that is split: normalised, cut to `READ` characters, empty if missing.

        Raises:
            InvalidInput: no text, not UTF-8, or half a surrogate pair, which no text can have.
        """
        if isinstance(value, (bytes, bytearray)):
            try:
                value = bytes(value).decode()
            except UnicodeDecodeError as error:
                raise InvalidInput(f"byte {error.start} is not UTF-8", remedy="Send the text in UTF-8") from None
        if is_missing(value):
            return ""
        if not isinstance(value, str):
            raise InvalidInput(f"{shown(value)} is no text", remedy="Send a string")
        value = value[:READ]
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise InvalidInput(
                    f"character {error.start} is half a surrogate pair", remedy="Send valid Unicode"
                ) from None
        return normalized(value, self.spec.normalize, self.spec.lowercase)[:READ].strip()

    def tensors(self) -> list[TensorSpec]:
        """Two tensors: the tokens, and how many of them are real."""
        return [TensorSpec(self.name, "int32", self.known().shape), TensorSpec(f"{self.name}_length", "int64", ())]

    def wire(self) -> tuple[Wire, ...]:
        """UTF-8."""
        return (Wire("BYTES", ()),)

    def json_schema(self) -> dict[str, Any]:
        """A string, or null where a text may be missing."""
        length = self.known().shape[0]
        kinds: Any = "string" if self.spec.missing == "drop" else ["string", "null"]
        return {"type": kinds, "description": f"a text; of one with more than {length} tokens the first are used"}

    def raw(self, value: Any) -> str | None:
        """Return the text as it came, None for a missing one."""
        if is_missing(value):
            return None
        return value.decode() if isinstance(value, bytes) else str(value)

    def _with_pretrained(self) -> tuple[TextField, list[Decision]]:
        """Leave a text as it is: its tokenizer has rules of its own for Unicode forms and upper case."""
        spec = msgspec.structs.replace(
            self.spec, tokenizer=tokenizers.PretrainedTokenizer(), normalize="none", lowercase=False
        )
        reason = "comes with the pretrained encoder, and has rules of its own for Unicode forms and upper case"
        decision = Decision(key=f"inputs.{self.name}.tokenizer", value="pretrained", reason=reason)
        return TextField(spec, pretrained=self._pretrained), [decision]

    def _learned(self, tokenizer: tokenizers.Tokenizer, values: Values) -> Learned:
        if self._pretrained is None:
            return open_tokenizer(tokenizer).learn(self._normalized(values))
        most = self._pretrained.architecture.tokens
        if self.spec.length is not None and self.spec.length > most:
            raise DataError(
                f"a length of {self.spec.length} tokens, and the pretrained encoder reads {most}",
                where=f"field {self.name}",
                remedy=f"Set length to {most} at most",
            )
        vocabulary = self._pretrained.vocabulary
        return {"pieces": vocabulary.pieces, "merges": vocabulary.merges, "pretrained": self._pretrained.pretrained}

    def _normalized(self, values: Values) -> Iterator[str]:
        return (self.text(value) for value in values)

    def _usual_length(self, spec: tokenizers.Tokenizer, statistics: FieldStatistics, values: Values) -> int:
        """Return the number of tokens that most training texts have at most."""
        tokenizer = open_tokenizer(spec, statistics)
        some = values[:: max(1, len(values) // _SAMPLE)]
        lengths = [len(tokenizer.tokens(text)) for text in self._normalized(some)]
        most = _MOST_NGRAMS if isinstance(spec, tokenizers.NgramTokenizer) else _MOST_IN_ORDER
        least = 1
        if self._pretrained is not None:
            least, most = LEAST_LENGTH, min(most, self._pretrained.architecture.tokens)
        return max(least, min(most, int(np.ceil(np.percentile(lengths, _SHARE)))))
