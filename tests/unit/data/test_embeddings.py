"""Vectors of words from files of every form, and from files that are none."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yunmo.core.errors import DataError, RecipeError
from yunmo.core.recipe import recipe_from
from yunmo.data.embeddings import LARGEST, read_embeddings
from yunmo.data.prepare import prepare

PIECES = ("the", "cat", "猫", "never")
ROWS = b"the 1 2 3\ncat -1e-1 .5 2\n\xe7\x8c\xab 7 8 9\nother 0 0 0\n"


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        b"4 3\n" + ROWS,
        gzip.compress(b"4 3\n" + ROWS),
        b"\xef\xbb\xbf" + ROWS,
        ROWS.replace(b"\n", b" \r\n"),
        ROWS.replace(b" ", b"\t"),
        ROWS.removesuffix(b"\n"),
        ROWS + b"\n\n",
        ROWS + b". . . 1 2 3\nat name@domain.com 1 2 3\n",
    ],
    ids=["plain", "header", "gzip", "mark", "spaces", "tabs", "no end", "blank", "words with spaces"],
)
def test_every_form_gives_the_vectors_of_the_vocabulary(tmp_path: Path, content: bytes) -> None:
    found = read_embeddings(written(tmp_path, content), PIECES)
    assert found.numbers.tolist() == [2, 3, 4]
    assert found.values.dtype == np.float32
    assert np.allclose(found.values, [[1, 2, 3], [-0.1, 0.5, 2], [7, 8, 9]])
    assert found.size == 3


BAD: list[tuple[bytes, str, int | None]] = [
    (b"", "the file is empty", None),
    (b"\n \n", "the file is empty", None),
    (b"the 1 2 3\ncat 1 2\n", "2 numbers where the first row has 3", 2),
    (b"the 1 2 3\ncat 1 2 3 4\n", "more numbers than the 3", 2),
    (b"the 1 2 3\n\ncat 1 nan 3\n", "'nan' is not a finite number", 3),
    (b"the 1 2 inf\n", "'inf' is not a finite number", 1),
    (b"the 1 2 1e39\n", "'1e39' is not a finite number", 1),
    (b"the 1 2 1_0\n", "'1_0' is not a finite number", 1),
    (b"the 1 2 x\n", "'x' is not a finite number", 1),
    (b"the 1 2 3\nthe 1 2 3\n", "'the' is there twice, first in row 1", 2),
    (b"the 1 2 3\n\xff\xfe 1 2 3\n", "not UTF-8", 2),
    (b"the 1 2 3\ncat 1  3\n", "two spaces", 2),
    (b"the 5\n", "vectors of 1 numbers", 1),
    (b"9 1000000\nthe 1\n", "vectors of 1,000,000 numbers", 1),
    (b"9 99999999999999999999\nthe 1\n", "numbers; 2 to 4,096", 1),
    (b"the" + b" 1" * (LARGEST + 1) + b"\n", "vectors of 4,097 numbers", 1),
    (b"x" * 200_000, "a line without end", 1),
    (b"5 3\n" + ROWS, "4 words where the first line says 5", 5),
    (b"2 3\n" + ROWS, "4 words where the first line says 2", 5),
    (gzip.compress(ROWS, mtime=0)[:-6], "damaged", None),
    (b"\x1f\x8bnothing", "damaged", None),
    (b"nothing 1 2 3\n", "none of the 4 words", None),
    (b"1 2 3\n4 5 6\n", "none of the 4 words", None),
]


@pytest.mark.parametrize(("content", "message", "row"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str, row: int | None) -> None:
    with pytest.raises(DataError) as caught:
        read_embeddings(written(tmp_path, content), PIECES)
    assert message in caught.value.message
    assert caught.value.where == ("vectors.txt" if row is None else f"vectors.txt, row {row}")
    assert caught.value.remedy
    assert len(str(caught.value)) < 500


def _recipe(file: str = "vectors.txt", **keys: Any) -> dict[str, Any]:
    field = {"name": "text", "type": "text", "encoder": {"type": "textcnn"}, "embeddings": {"file": file}, **keys}
    return {"data": {"train": "t.csv"}, "inputs": [field], "outputs": [{"name": "label", "type": "category"}]}


def test_prepared_data_holds_the_vectors_and_says_how_many_words_were_found(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "".join(f"the {'cat' if i % 2 else 'dog'} no{i},{i % 2}\n" for i in range(40)))
    file = written(tmp_path, ROWS)
    asked = recipe_from(_recipe())
    found = prepare(asked, {"train": table}, tmp_path / "data", embeddings={"text": file})
    pieces = found.statistics["text"].pieces
    assert pieces == ("the", "cat", "dog") or pieces == ("the", "dog", "cat")
    numbers, vectors = found.embeddings()["text"]
    by_word = {pieces[number - 2]: row.tolist() for number, row in zip(numbers, vectors, strict=True)}
    assert by_word == {"the": [1, 2, 3], "cat": pytest.approx([-0.1, 0.5, 2])}
    (text,) = found.recipe.inputs or ()
    assert text.embeddings.size == text.vector_size == 3
    assert text.embeddings.digest.startswith("sha256:")
    (decision,) = [each for each in found.decisions if each.key == "inputs.text.embeddings"]
    assert decision.value == "2 of 3 words found (66.7%)"
    again = prepare(found.recipe, {"train": table}, tmp_path / "again", embeddings={"text": file})
    assert again.recipe == found.recipe
    written(tmp_path, ROWS + b"more 1 2 3\n")
    with pytest.raises(DataError, match="not the file that the recipe was resolved with"):
        prepare(found.recipe, {"train": table}, tmp_path / "changed", embeddings={"text": file})
    assert not (tmp_path / "changed").exists()
    with pytest.raises(DataError, match=r"'vectors\.txt' is not here"):
        prepare(asked, {"train": table}, tmp_path / "none")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"encoder": None}, "for encoders that read words in their order"),
        ({"encoder": {"type": "bag"}}, "for encoders that read words in their order"),
        ({"tokenizer": {"type": "subwords"}}, "tokens of tokenizer 'subwords'"),
        ({"tokenizer": {"type": "ngrams"}}, "tokens of tokenizer 'ngrams'"),
        ({"embedding": 50}, "their own length"),
        ({"embeddings": {"file": ""}}, "length >= 1"),
        ({"embeddings": {"path": "x"}}, "unknown key 'path'"),
        ({"embeddings": "x.txt"}, "expected 'object"),
    ],
)
def test_a_recipe_that_has_no_use_for_embeddings_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from(_recipe(**keys))
    assert message in caught.value.message
