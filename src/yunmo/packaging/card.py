"""The model card: README.md of a bundle, in the form that Hugging Face reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from yunmo import __version__
from yunmo.bundle.manifest import Tensors
from yunmo.bundle.read import Golden
from yunmo.core.fields import (
    CategoryField,
    CategoryOutput,
    FieldStatistics,
    ImageField,
    InputField,
    LabelsOutput,
    NumberOutput,
    OutputField,
    SequenceField,
    TextField,
)
from yunmo.core.recipe import Recipe
from yunmo.training.report import LABELS, metric_names, title, with_interval

_SHOWN = 10
"""Categories named in the text."""
_EXAMPLE = 600
"""Characters of an example request; longer values are left out."""
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "`": "'", "\n": " ", "\r": " "})


def render_card(
    *,
    name: str,
    recipe: Recipe,
    statistics: Mapping[str, FieldStatistics],
    report: Mapping[str, Any],
    tensors: Tensors,
    golden: Golden,
) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        name: of the model.
        recipe: resolved.
        statistics: of every field.
        report: as `yunmo.training.report.make_report` makes it.
        tensors: of the graph.
        golden: the golden examples; the first is the example request.
    """
    inputs, outputs = recipe.inputs or (), recipe.outputs or ()
    classes = [output for output in outputs if isinstance(output, CategoryOutput)]
    return _template().render(
        front_matter=_front_matter(name, recipe, report),
        name=name,
        version=__version__,
        inputs=[{"name": field.name, "description": _describe(field)} for field in inputs],
        outputs=[_output(output, statistics[output.name], report) for output in outputs],
        rows=report["data"]["rows"],
        digests=report["data"]["digests"],
        training=_training(recipe, report),
        decisions=report["decisions"],
        classes=any(isinstance(output, (CategoryOutput, LabelsOutput)) for output in outputs),
        calibration=_calibration(classes, report),
        unknown=[field.name for field in inputs if isinstance(field, CategoryField)],
        picture=len(inputs) == 1 and isinstance(inputs[0], ImageField),
        example=_example(golden),
        tensors=tensors,
        golden=len(golden.rows),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("yunmo.packaging", "."),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # the card is Markdown: `cell` escapes what would be HTML or a table's border
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda value: str(value).translate(_ENTITIES)
    return environment.get_template("card.md.jinja")


def _front_matter(name: str, recipe: Recipe, report: Mapping[str, Any]) -> str:
    """Return the metadata that Hugging Face's hub reads: https://huggingface.co/docs/hub/model-cards ."""
    task = _pipeline(recipe.inputs or (), recipe.outputs or ())
    data = Path(recipe.data.train).name if recipe.data.train else recipe.data.dataset or "data"
    results = [
        {
            "task": {"type": task or "other", "name": f"prediction of {output.name}"},
            "dataset": {"name": data, "type": "private", "split": "test"},
            "metrics": [
                {"type": metric, "value": round(report["test"][output.name][metric], 6), "name": LABELS[metric]}
                for metric in metric_names(report, output.name)
                if report["test"][output.name][metric] is not None
            ],
        }
        for output in recipe.outputs or ()
    ]
    matter: dict[str, Any] = {"library_name": "yunmo", "license": "other", "license_name": "none-chosen"}
    if task:
        matter["pipeline_tag"] = task
    matter |= {"tags": ["yunmo", "onnx", report["task"]], "model-index": [{"name": name, "results": results}]}
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)


def _pipeline(inputs: Sequence[InputField], outputs: Sequence[OutputField]) -> str | None:
    """Return the hub's name for the task, None where it has none."""
    category = all(isinstance(output, (CategoryOutput, LabelsOutput)) for output in outputs)
    number = all(isinstance(output, NumberOutput) for output in outputs)
    if all(isinstance(field, ImageField) for field in inputs):
        return "image-classification" if category else None
    if all(isinstance(field, TextField) for field in inputs):
        return "text-classification" if category else None
    if any(isinstance(field, (ImageField, SequenceField, TextField)) for field in inputs):
        return None
    return "tabular-classification" if category else "tabular-regression" if number else None


def _describe(field: InputField) -> str:
    kind = type(field).__struct_config__.tag
    if isinstance(field, ImageField):
        size = field.size if isinstance(field.size, tuple) else (field.size, field.size)
        return f"a picture, brought to {size[1]} x {size[0]} pixels, {field.color}"
    return f"a {kind}"


def _output(output: OutputField, statistics: FieldStatistics, report: Mapping[str, Any]) -> dict[str, Any]:
    values = report["test"][output.name]
    against = report["baselines"].get(output.name) or {}
    baselines = [against[kind] for kind in ("linear", "simple") if kind in against]
    categories = (
        (output.categories or statistics.categories) if isinstance(output, (CategoryOutput, LabelsOutput)) else ()
    )
    return {
        "name": output.name,
        "categories": categories,
        "which": "any" if isinstance(output, LabelsOutput) else "one",
        "shown": categories[:_SHOWN],
        "more": max(0, len(categories) - _SHOWN),
        "baselines": [{"name": title(one["name"])} for one in baselines],
        "metrics": [
            {
                "label": LABELS[metric],
                "value": with_interval(metric, values),
                "baselines": [with_interval(metric, one["metrics"]) for one in baselines],
            }
            for metric in metric_names(report, output.name)
        ],
        "verdict": report["verdicts"].get(output.name, {}).get("sentence"),
        "notes": values["notes"],
    }


def _training(recipe: Recipe, report: Mapping[str, Any]) -> str:
    train, history = recipe.train, report["training"]["history"]
    parts = [f"{len(history)} epochs" if len(history) != 1 else "1 epoch"]
    if train.optimizer:
        parts.append(f"optimizer {train.optimizer}")
    if train.lr:
        parts.append(f"learning rate {train.lr:g}")
    if train.batch_size:
        parts.append(f"batches of {'all' if train.batch_size == 'full' else train.batch_size} rows")
    parts.append(f"seed {train.seed}")
    kept = report["training"]["kept_epoch"]
    why = "the best on the validation rows" if train.keep == "best" else "the last"
    return f"{', '.join(parts)}." + (f" The weights of epoch {kept} were kept: {why}." if kept else "")


def _calibration(outputs: Sequence[CategoryOutput], report: Mapping[str, Any]) -> str | None:
    errors = [report["test"][output.name]["calibration_error"] for output in outputs]
    known = [error for error in errors if error is not None]
    return f"{max(known) * 100:.1f} points" if known else None


def _example(golden: Golden) -> str:
    """Return a request for the first golden row, on one line, safe within single quotes."""
    row = golden.rows[0]
    text = json.dumps(row, ensure_ascii=False)
    if len(text) > _EXAMPLE:
        text = json.dumps(
            {name: value if len(json.dumps(value)) <= _EXAMPLE // len(row) else "…" for name, value in row.items()},
            ensure_ascii=False,
        )
    return text.replace("'", "\\u0027")
