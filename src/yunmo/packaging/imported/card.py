"""Card and report page of an imported model: where it comes from, what it takes and answers, what was checked."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

import onnx
import yaml

from yunmo import __version__
from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.bundle.read import Golden
from yunmo.core.fields import CategoryOutput, ModelInput, ModelOutput
from yunmo.core.schema import Spec
from yunmo.packaging.imported.compose import Fields

_SHOWN = 10
_EXAMPLE = 600
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "`": "'", "\n": " ", "\r": " "})


class Origin(Spec, frozen=True):
    """What an imported file says of itself."""

    filename: str
    sha256: str
    size: int
    producer: str
    ir_version: int
    opsets: dict[str, int]

    @classmethod
    def of(cls, model: onnx.ModelProto, filename: str, digest: str, size: int) -> Origin:
        """Read it from the file's head."""
        return cls(
            filename=filename,
            sha256=digest,
            size=size,
            producer=f"{model.producer_name} {model.producer_version}".strip()[:200] or "unknown",
            ir_version=model.ir_version,
            opsets={one.domain or "ai.onnx": one.version for one in model.opset_import},
        )


def render_card(
    name: str, origin: Origin, fields: Fields, tensors: Tensors, golden: Golden, notes: Sequence[str]
) -> str:
    """Return the card as Markdown with YAML front matter, in the form that Hugging Face reads."""
    matter = {"library_name": "yunmo", "license": "other", "license_name": "none-chosen", "tags": ["yunmo", "onnx"]}
    changes = "".join(f"- {_cell(note)}\n" for note in notes) or "- nothing\n"
    opsets = ", ".join(f"{domain} {version}" for domain, version in origin.opsets.items())
    rows = "".join(_row("", tensor) for tensor in tensors.inputs) + "".join(_row("→ ", one) for one in tensors.outputs)
    return f"""---
{yaml.safe_dump(matter, sort_keys=False)}---

# {_cell(name)}

Answers {", ".join(map(_answer, fields.outputs))} from {", ".join(map(_field, fields.inputs))}.

Imported from an ONNX file, checked, packed and signed by Yunmo {__version__}. It was not trained or measured here:
`yunmo evaluate` does that, on data with known answers.

## Origin

| | |
|---|---|
| file | {_cell(origin.filename)}, {origin.size} bytes |
| SHA-256 | `{origin.sha256}` |
| made by | {_cell(origin.producer)} |
| ONNX | IR {origin.ir_version}, {_cell(opsets)} |

What was changed besides joining the fields to the graph:

{changes}
## Use

```sh
yunmo deploy {_cell(name)}:VERSION
curl --json '{_example(golden)}' \\
  -H "authorization: Bearer $YUNMO_API_KEY" $YUNMO_URL/api/v1/endpoints/{_cell(name)}/predict
```

`graph.onnx` runs in any ONNX Runtime; its inputs are the encoded fields:

| tensor | type | shape |
|---|---|---|
{rows}
## Files and signature

| file | what |
|---|---|
| `manifest.json` | fields, tensors, versions, and the SHA-256 of every other file |
| `graph.onnx` | the imported graph, with what turns fields into its tensors |
| `statistics.json` | what each field needs to be encoded |
| `golden.json` | {len(golden.rows)} rows with their answers; they are run whenever the model is loaded |
| `report.json`, `report.html` | where it comes from and what was checked |
| `signature.json` | OpenSSF model signature (P-256) over all files |

## License

None was chosen: ask whoever made this model before you use it. Yunmo itself is Apache-2.0.
"""


def render_page(name: str, card: str) -> str:
    """Return the report as a page that loads and runs nothing: the card's text."""
    text = html.escape(card.partition("---\n\n")[2])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(name)}</title>'
        "<style>body{max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
        "pre{white-space:pre-wrap;font:15px/1.5 ui-monospace,monospace}</style>"
        f'<meta name="viewport" content="width=device-width"></head><body><pre>{text}</pre></body></html>'
    )


def _cell(text: str) -> str:
    return text.translate(_ENTITIES)


def _field(spec: ModelInput) -> str:
    return f"`{_cell(spec.name)}` (a {type(spec).__struct_config__.tag})"


def _answer(spec: ModelOutput) -> str:
    if isinstance(spec, CategoryOutput):
        names = spec.categories or ()
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"`{_cell(spec.name)}` (one of {_cell(', '.join(names[:_SHOWN]))}{more})"
    return f"`{_cell(spec.name)}` (a {type(spec).__struct_config__.tag})"


def _row(mark: str, tensor: Tensor) -> str:
    columns = f": {_cell(', '.join(tensor.columns))}" if tensor.columns else ""
    return f"| {mark}`{_cell(tensor.name)}` | {tensor.dtype} | {tensor.sizes}{columns} |\n"


def _example(golden: Golden) -> str:
    text = json.dumps(golden.rows[0], ensure_ascii=False)
    if len(text) > _EXAMPLE:
        text = json.dumps(dict.fromkeys(golden.rows[0], "…"), ensure_ascii=False)
    return text.replace("'", "\\u0027")
