"""From data files to prepared data: infer, clean, split, fit on train alone, encode once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import msgspec
import numpy as np

from yunmo.core.encoders import PretrainedEncoder
from yunmo.core.errors import DataError
from yunmo.core.events import AnyEvent, DataPrepared, Decision
from yunmo.core.fields import FieldStatistics, InputField
from yunmo.core.fields import ImageField as ImageSpec
from yunmo.core.fields import TextField as TextSpec
from yunmo.core.files import file_digest, storage_errors, write_atomic
from yunmo.core.recipe import Recipe, check_recipe, recipe_data
from yunmo.data.cache import Check, PictureColumn, checker, fill_missing, take, write_field, write_pictures, write_texts
from yunmo.data.cleaning import Report, clean_rows, drop_duplicates, drop_outliers, note_overlap
from yunmo.data.embeddings import write_embeddings
from yunmo.data.fields.base import Field, Values
from yunmo.data.fields.category import CategoryOutput, category_text
from yunmo.data.fields.image import ImageField, PixelStatistics
from yunmo.data.fields.labels import LabelsOutput
from yunmo.data.fields.number import NumberField, NumberOutput, read_numbers
from yunmo.data.fields.registry import open_field, open_output
from yunmo.data.fields.text import TextField
from yunmo.data.folds import Fold, divide
from yunmo.data.infer import check_column, find_target, infer_inputs, infer_output
from yunmo.data.limits import DEFAULT_LIMITS, Limits
from yunmo.data.prepared import INDEX, SPLITS, Index, Prepared, load_prepared
from yunmo.data.pretrained.folder import Content, PretrainedFolder
from yunmo.data.sample import Sample, rows_enough
from yunmo.data.sources.base import Source
from yunmo.data.sources.open import open_source
from yunmo.data.splits import Rows, hold_out, strata

TEST_SHARE = 0.2
EXAMPLE_ROWS = 8
"""Golden examples taken from the test split."""
_MORE_ROWS = "Give more rows, at least a few for each class"


def _ignore(event: AnyEvent) -> None:
    """Emit to nobody."""


def prepare(
    recipe: Recipe,
    splits: dict[str, Path],
    folder: Path,
    *,
    target: str | None = None,
    emit: Callable[[AnyEvent], None] = _ignore,
    cancelled: Callable[[], bool] = lambda: False,
    limits: Limits = DEFAULT_LIMITS,
    fold: Fold | None = None,
    embeddings: Mapping[str, Path] | None = None,
    pretrained: Mapping[str, Path] | None = None,
    sample: Sample | None = None,
) -> Prepared:
    """Prepare data for training, or open it if that was done before.

    Rows are cleaned and duplicates dropped before splits are made; everything learned of the data is learned from the
    train split. Pictures are decoded once, in chunks, into files that are memory-mapped afterwards.

    Args:
        recipe: what was asked for; inputs and outputs may be left open.
        splits: the file of each split; train must be there.
        folder: where the result goes. It appears there whole, or not at all.
        target: the column to predict, if the recipe does not name outputs.
        emit: gets a `DataPrepared`.
        cancelled: asked for every chunk.
        limits: how much the files may hold.
        fold: of the recipe's cross-validation: its rows held out become the split test, and the true test rows are in
            none; None: no fold.
        embeddings: the file of each text that begins with vectors learned elsewhere.
        pretrained: packed folders of pretrained encoders, by the digest that the recipe has of each.
        sample: prepares some of the rows of each split only; None: all.

    Raises:
        DataError: data that no model can be trained on; names file, row, field and remedy.
        UnsafeArchive: an archive that could do harm.
        StorageFull: no space left; nothing stays behind.
        Cancelled: ``cancelled`` said so; nothing stays behind.
    """
    digests = {split: _digest(path) for split, path in sorted(splits.items())}
    vectors = embeddings or {}
    digests_of_vectors = {name: _digest(path) for name, path in sorted(vectors.items())}
    asked = msgspec.json.encode(
        [recipe_data(recipe), digests, target, *([fold] if fold else []), *([digests_of_vectors] if vectors else [])]
    )
    fingerprint = hashlib.sha256(asked).hexdigest()
    if (folder / INDEX).is_file():
        done = load_prepared(folder)
        if done.files.fingerprint == fingerprint:
            emit(DataPrepared(rows=done.rows, cleaning=done.cleaning))
            return done
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with storage_errors(folder):
            partial.mkdir(parents=True)
            work = _Preparation(
                recipe, splits, partial, target, checker(cancelled), limits, fold, vectors, pretrained, sample
            )
            try:
                index = work.run(fingerprint, digests)
            finally:
                work.close()
            write_atomic(partial / INDEX, msgspec.json.encode(index))
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    prepared = load_prepared(folder)
    emit(DataPrepared(rows=prepared.rows, cleaning=prepared.cleaning))
    return prepared


class _Preparation:
    """One run of `prepare`: the state that its steps share."""

    def __init__(
        self,
        recipe: Recipe,
        splits: dict[str, Path],
        folder: Path,
        target: str | None,
        check: Check,
        limits: Limits,
        fold: Fold | None,
        embeddings: Mapping[str, Path],
        pretrained: Mapping[str, Path] | None,
        sample: Sample | None,
    ) -> None:
        self.recipe, self.folder, self.check, self.limits, self.fold = recipe, folder, check, limits, fold
        self.sample = sample
        self.decisions: list[Decision] = []
        self.statistics: dict[str, FieldStatistics] = {}
        self.files: dict[str, dict[str, dict[str, str]]] = {"inputs": {}, "outputs": {}}
        self.texts: dict[str, dict[str, tuple[str, ...]]] = {}
        self.embeddings = embeddings
        self.vectors: dict[str, tuple[str, ...]] = {}
        self._columns: dict[tuple[str, str], Any] = {}
        self._number = 0
        self._archives = pretrained or {}
        self.weights: dict[str, str] = {}
        if "train" not in splits or not set(splits) <= set(SPLITS):
            raise DataError("splits are train, and perhaps validation and test", where=", ".join(splits))
        self.sources: dict[str, Source] = {}
        try:
            expected = self._expected(target)
            for split in SPLITS:
                if split in splits:
                    self.sources[split] = open_source(splits[split], limits=limits, expected=expected)
            self._refuse_too_few_rows()
            self._open_fields(target)
        except BaseException:
            self.close()
            raise
        self.report = Report({split: len(source) for split, source in self.sources.items()})

    def close(self) -> None:
        """Close the sources."""
        for source in self.sources.values():
            source.close()

    def run(self, fingerprint: str, digests: dict[str, str]) -> Index:
        """Do all the steps and return the index of what was written."""
        rows = self._split(self._clean())
        if self.sample is not None:
            rows = self._sampled(rows, self.sample)
        self.report.add("train", drop_outliers(self.inputs, self._train_column, rows, self._where("train")))
        rows = self._write_pictures(rows)
        self._write_fields(rows)
        counts = {split: len(chosen) for split, chosen in rows.items()}
        data = msgspec.structs.replace(self.recipe.data, digests=digests)
        if "test" not in self.sources:
            if data.test_share is None:
                share = Decision(key="data.test_share", value=str(TEST_SHARE), reason="no test data was given")
                self.decisions.append(share)
            data = msgspec.structs.replace(data, test_share=self._test_share)
        resolved = msgspec.structs.replace(
            self.recipe,
            data=data,
            inputs=tuple(field.spec for field in self.inputs),
            outputs=tuple(field.spec for field in self.outputs),
        )
        return Index(
            fingerprint=fingerprint,
            recipe=recipe_data(resolved),
            statistics=self.statistics,
            rows=counts,
            cleaning=self.report.data(counts),
            decisions=tuple(self.decisions),
            inputs=self.files["inputs"],
            outputs=self.files["outputs"],
            texts=self.texts,
            embeddings=self.vectors,
            pretrained=self.weights,
            examples=self._examples(rows["test"]),
        )

    @property
    def _test_share(self) -> float:
        share = self.recipe.data.test_share
        return TEST_SHARE if share is None else share

    def _expected(self, target: str | None) -> set[str]:
        named = (*(self.recipe.inputs or ()), *(self.recipe.outputs or ()))
        folds = self.recipe.evaluate.cross_validation
        others = {name for name in (target, folds.column if folds else None) if name}
        return {field.column or field.name for field in named} | others

    def _refuse_too_few_rows(self) -> None:
        """Say so first of all: of so few rows every other finding, such as a constant column, would mislead."""
        source, missing = self.sources["train"], [split for split in SPLITS if split not in self.sources]
        if len(source) <= len(missing):
            count = "1 row is" if len(source) == 1 else f"{len(source)} rows are"
            also = f", since {' and '.join(missing)} rows are taken from it" if missing else ""
            raise DataError(f"{count} too few{also}", where=source.path.name, remedy=_MORE_ROWS)

    @contextmanager
    def _of_file(self, split: str) -> Iterator[None]:
        """Name the file in errors of a field about a whole column, which knows no file."""
        try:
            yield
        except DataError as error:
            name = self.sources[self._origin(split)].path.name
            if error.where is None or name in error.where:
                raise
            raise type(error)(error.message, where=f"{name}, {error.where}", remedy=error.remedy) from None

    def _open_fields(self, target: str | None) -> None:
        """Find inputs and outputs, from the recipe or the data, and check that every file has their columns."""
        source = self.sources["train"]
        self.decisions += [Decision(key="data.train", value=source.kind, reason=note) for note in source.notes]
        outputs = self.recipe.outputs
        if outputs is None:
            name, found = find_target(source, target)
            output, decision = infer_output(source, name)
            outputs = (output,)
            self.decisions += [*found, decision]
        inputs = self.recipe.inputs
        if inputs is None:
            inputs, found = infer_inputs(source, [output.column or output.name for output in outputs])
            self.decisions += found
        check_recipe(msgspec.structs.replace(self.recipe, inputs=inputs, outputs=outputs))
        self.inputs: list[Field] = [
            open_field(spec, max_pixels=self.limits.pixels, pretrained=self._pretrained(spec)) for spec in inputs
        ]
        self.outputs: list[Field] = [open_output(spec) for spec in outputs]
        folds = self.recipe.evaluate.cross_validation
        if folds is not None and folds.column is not None:
            check_column(source, folds.column)
        for field in (*self.inputs, *self.outputs):
            for opened in self.sources.values():
                check_column(opened, field.column)
                if opened.is_picture(field.column) != isinstance(field.spec, ImageSpec) and opened.kind != "arrays":
                    what = "pictures" if opened.is_picture(field.column) else "no pictures"
                    raise DataError(f"the column holds {what}", where=f"{opened.path.name}, field {field.column}")

    def _pretrained(self, spec: InputField) -> Content | None:
        """Open the folder of a field's pretrained encoder, and keep its weights."""
        if not isinstance(spec.encoder, PretrainedEncoder):
            return None
        digest, name = spec.encoder.digest, PurePath(spec.encoder.folder).name
        if digest is None or digest not in self._archives:
            raise DataError("the pretrained encoder was not sent", where=f"field {spec.name}", remedy="Upload it first")
        with PretrainedFolder(self._archives[digest], name=name, digest=digest) as folder:
            content = folder.content
            file = f"pretrained-{len(self.weights)}.safetensors"
            folder.write_weights(self.folder / file)
        self.weights[spec.name] = file
        return content

    def _column(self, split: str, name: str) -> Any:
        key = (split, name)
        if key not in self._columns:
            self._columns[key] = self.sources[split].column(name)
        return self._columns[key]

    def _train_column(self, name: str) -> Any:
        return self._column("train", name)

    def _where(self, split: str) -> Callable[[int], str]:
        return self.sources[self._origin(split)].where

    def _origin(self, split: str) -> str:
        """Return the split whose file a split's rows come from."""
        return split if split in self.sources else "train"

    def _clean(self) -> dict[str, Rows]:
        """Return the rows of each file that can be used."""
        fields = [*self.inputs, *self.outputs]
        rows: dict[str, Rows] = {}
        for split, source in self.sources.items():
            self.check()
            columns = {field.column: self._column(split, field.column) for field in fields}
            rows[split], issues = clean_rows(fields, columns, source.where, len(source))
            self.report.add(split, issues)
        names = list(dict.fromkeys(field.column for field in fields))
        content = {split: [self._column(split, name) for name in names] for split in rows}
        if self.recipe.clean.duplicates == "drop":
            rows["train"], issues = drop_duplicates(content["train"], rows["train"], self.sources["train"].where)
            self.report.add("train", issues)
        for split in ("validation", "test"):
            if split in rows:
                train = (content["train"], rows["train"])
                issues = note_overlap(train, (content[split], rows[split]), self.sources[split].where)
                self.report.add(split, issues)
        self._keep_numbers()
        return rows

    def _keep_numbers(self) -> None:
        """Keep columns that only number fields read as arrays: their texts are read once, and take more memory."""
        fields = [*self.inputs, *self.outputs]
        others = {field.column for field in fields if not isinstance(field, (NumberField, NumberOutput))}
        for key, values in self._columns.items():
            if key[1] not in others:
                self._columns[key] = read_numbers(values)[0]

    def _split(self, rows: dict[str, Rows]) -> dict[str, Rows]:
        """Take from train what is not given; of a fold, what it holds out is the test."""
        if self.fold is not None:
            rows["train"], rows["test"] = self._divide(rows["train"], self.fold)
        shares = {"test": self._test_share, "validation": self.recipe.train.validation}
        for split, share in shares.items():
            if split in rows:
                continue
            stay, held = hold_out(self._strata(rows["train"]), share, self.recipe.train.seed)
            rows[split], rows["train"] = rows["train"][held], rows["train"][stay]
        for split in SPLITS:
            if not len(rows[split]):
                source = self.sources[self._origin(split)]
                raise DataError(
                    f"no rows are left for {split}, of {len(source)}", where=source.path.name, remedy=_MORE_ROWS
                )
        return {split: rows[split] for split in SPLITS}

    def _strata(self, rows: Rows) -> Rows:
        output = self.outputs[0]
        return strata(output.spec, take(self._column("train", output.column), rows))  # type: ignore[arg-type] # an output's

    def _divide(self, rows: Rows, fold: Fold) -> tuple[Rows, Rows]:
        """Return the rows that a fold trains on, and those it holds out; the test's are in neither."""
        spec, seed = self.recipe.evaluate.cross_validation, self.recipe.train.seed
        if spec is None:
            raise DataError("the recipe asks for no cross-validation", where="evaluate.cross_validation")
        if fold.without_test:
            rows = rows[hold_out(self._strata(rows), self._test_share, seed)[0]]
        keys = take(self.sources["train"].column(spec.column), rows) if spec.column else None
        where = self._where("train")
        stay, held = divide(spec, fold, self._strata(rows), keys, seed, lambda row: where(int(rows[row])))
        return rows[stay], rows[held]

    def _sampled(self, rows: dict[str, Rows], sample: Sample) -> dict[str, Rows]:
        """Draw some rows of each split, of every class of the first output alike."""
        for output in self.outputs:
            if isinstance(output, LabelsOutput):
                raise DataError(
                    "there is no advice on several labels at once, only on categories and numbers",
                    where=f"field {output.column}",
                    remedy="Train: the report holds the network against a linear model",
                )
        labels = [
            {split: self._labels(output.column, split, chosen) for split, chosen in rows.items()}
            for output in self.outputs
            if isinstance(output, CategoryOutput)
        ]
        columns = {field.column: self._train_column(field.column) for field in self.inputs}
        drawn = sample.draw(rows, self._strata(rows["train"]), labels, rows_enough(self.inputs, columns))
        for split, chosen in drawn.items():
            if not len(chosen):
                raise DataError(
                    f"a sample of {len(drawn['train'])} rows has none of the labels in {split}",
                    where=self.sources[self._origin(split)].path.name,
                    remedy="There are too many labels to tell anything from a sample: train, and look at the report",
                )
        return drawn

    def _labels(self, column: str, split: str, rows: Rows) -> list[str | None]:
        return [category_text(value) for value in take(self._column(self._origin(split), column), rows)]

    def _write_pictures(self, rows: dict[str, Rows]) -> dict[str, Rows]:
        """Decode all picture fields; return the rows whose pictures could all be read."""
        numbers = [index for index, field in enumerate(self.inputs) if isinstance(field, ImageField)]
        if not numbers:
            return rows
        for index in numbers:
            field = self.inputs[index]
            values = take(self._column("train", field.column), rows["train"])
            where = self._where("train")
            with self._of_file("train"):
                self.inputs[index], found = field.resolve(values, lambda row, w=where: w(int(rows["train"][row])))  # type: ignore[misc] # bound now
            self.decisions += found
        fields = [field for field in self.inputs if isinstance(field, ImageField)]
        written: dict[str, Rows] = {}
        for split, chosen in rows.items():
            columns = [self._picture_column(field, split) for field in fields]
            drop = self.recipe.clean.unreadable == "drop"
            written[split] = write_pictures(columns, chosen, self._where(split), drop=drop, check=self.check)
            for column in columns:
                self.report.add(split, column.unreadable.issue(column.field.name))
                self._refuse_mostly_unreadable(column, split, len(chosen))
                if column.statistics is not None:
                    self.statistics[column.field.name] = column.statistics.statistics(column.field)
                fill_missing(column, self.statistics[column.field.name])
        self.inputs = [
            open_field(field.spec, self.statistics[field.name], max_pixels=self.limits.pixels)
            if isinstance(field, ImageField)
            else field
            for field in self.inputs
        ]
        return written

    def _picture_column(self, field: ImageField, split: str) -> PictureColumn:
        return PictureColumn(
            field=field,
            values=self._column(self._origin(split), field.column),
            file=self._new_file("inputs", split, field.name),
            statistics=PixelStatistics(field.shape[2]) if split == "train" else None,
        )

    def _refuse_mostly_unreadable(self, column: PictureColumn, split: str, rows: int) -> None:
        where = f"{self.sources[self._origin(split)].path.name}, field {column.field.name}"
        there = rows - len(column.missing)
        if column.unreadable.count * 2 > there:
            raise DataError(
                f"{column.unreadable.count} of {there} pictures cannot be read, such as {column.unreadable.rows[0]}",
                where=where,
                remedy="Give JPEG, PNG, WebP, BMP or GIF pictures",
            )
        if split == "train" and not there:
            raise DataError("every training picture is missing", where=where, remedy="Leave the field out")

    def _write_fields(self, rows: dict[str, Rows]) -> None:
        """Resolve and fit every other field on the train rows, then encode all splits."""
        for part, fields in (("inputs", self.inputs), ("outputs", self.outputs)):
            for index, field in enumerate(fields):
                if not isinstance(field, ImageField):
                    fields[index] = self._write_field(field, rows, part)

    def _write_field(self, field: Field, rows: dict[str, Rows], part: str) -> Field:
        train = take(self._column("train", field.column), rows["train"])
        where = self._where("train")
        with self._of_file("train"):
            resolved, found = field.resolve(train, lambda row: where(int(rows["train"][row])))
            learned = resolved.fit(train)
        self.decisions += found
        self.statistics[field.name] = learned
        if isinstance(resolved, TextField) and resolved.spec.embeddings is not None:
            resolved = TextField(self._write_embeddings(resolved.spec, learned.pieces))
        fitted = type(resolved)(resolved.spec, learned)
        for split, chosen in rows.items():
            values = self._column(self._origin(split), field.column)
            if isinstance(fitted, (CategoryOutput, LabelsOutput)) and split != "train":
                place = self._where(split)
                labels = take(values, chosen)
                fitted.refuse_unknown(labels, lambda row, c=chosen, p=place: p(int(c[row])), "does not occur in train")  # type: ignore[misc] # bound now
            files = {tensor.name: self._new_file(part, split, tensor.name) for tensor in fitted.tensors()}
            write_field(fitted, values, chosen, self._where(split), files, self.check)
            if isinstance(fitted, TextField):
                self._write_texts(fitted, values, chosen, split)
        return fitted

    def _write_embeddings(self, spec: TextSpec, pieces: Sequence[str]) -> TextSpec:
        """Write the vectors that the words of a text begin with; return its specification with all about them."""
        names = f"vectors-{self._number}.npy", f"vectors-{self._number + 1}.npy"
        self._number += 2
        self.check()
        files = self.folder / names[0], self.folder / names[1]
        pinned, decision = write_embeddings(spec, self.embeddings.get(spec.name), pieces, files)
        self.vectors[spec.name] = names
        self.decisions.append(decision)
        return pinned

    def _write_texts(self, field: TextField, values: Values, rows: Rows, split: str) -> None:
        """Keep texts as they are: the report shows them, and the linear model learns from its own n-grams."""
        names = f"{split}-{self._number}.npy", f"{split}-{self._number + 1}.npy"
        self._number += 2
        write_texts(field, values, rows, (self.folder / names[0], self.folder / names[1]), self.check)
        self.texts.setdefault(split, {})[field.name] = names

    def _new_file(self, part: str, split: str, tensor: str) -> Path:
        """Name the file of a tensor by number, since names of columns may hold anything."""
        name = f"{split}-{self._number}.npy"
        self._number += 1
        self.files[part].setdefault(split, {})[tensor] = name
        return self.folder / name

    def _examples(self, rows: Rows) -> list[dict[str, Any]]:
        """Return evenly spread rows of the test split as a request would send them."""
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(EXAMPLE_ROWS, len(rows))).astype(np.int64))]
        origin = self._origin("test")
        return [
            {field.name: field.raw(self._column(origin, field.column)[row]) for field in self.inputs} for row in chosen
        ]


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else ""
