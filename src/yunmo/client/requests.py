"""The API as functions: each builds the `Call` or flow of calls for one thing that a client can ask for."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import yaml
from msgspec import UNSET, UnsetType

from yunmo.client.call import Call, FileBody, Flow, Progress, Work, decoder, json_body
from yunmo.core.errors import InvalidInput, NotFound, RecipeError
from yunmo.core.files import file_digest
from yunmo.core.ids import name_from_stem, split_reference
from yunmo.core.recipe import Recipe as SpecRecipe
from yunmo.core.recipe import pretrained_encoders, recipe_from
from yunmo.core.resources import (
    CreatedKey,
    Dataset,
    Endpoint,
    Job,
    Key,
    ModelVersion,
    NewDataset,
    NewDeployment,
    NewEvaluation,
    NewImport,
    NewJob,
    NewKey,
    NewRun,
    Run,
    SplitFile,
    Upload,
    Verification,
)
from yunmo.core.snapshot import Sticky

T = TypeVar("T")
Recipe = Mapping[str, Any] | str | Path
SPLITS = ("train", "validation", "test")

_JSON = {"content-type": "application/json"}
_BYTES = {"content-type": "application/octet-stream"}
_ZIP = b"PK\x03\x04"


def _path(*parts: str | int) -> str:
    return "/api/v1/" + "/".join(quote(str(part), safe="") for part in parts)


def _get(kind: type[T], *parts: str | int) -> Call[T]:
    return Call("GET", _path(*parts), decoder(kind))


def _send(method: str, kind: type[T], body: object, *parts: str | int, patient: bool = False) -> Call[T]:
    plain = body if isinstance(body, (dict, list)) else asdict(body)  # type: ignore[call-overload]
    return Call(method, _path(*parts), decoder(kind), headers=_JSON, body=json_body(plain), patient=patient)


def _nothing(_: bytes) -> None:
    """An answer without content."""


# --- data ---


def upload(path: str | Path, *, progress: Progress | None = None) -> Call[Upload]:
    """Send a file to the service; it is streamed, and known by its SHA-256 from then on.

    Args:
        path: the file.
        progress: called with bytes sent and all bytes, after each piece.

    Raises:
        InvalidInput: there is no such file.
    """
    file = FileBody(Path(path), progress)
    headers = {**_BYTES, "content-length": str(file.size)}
    return Call("POST", _path("uploads"), decoder(Upload), headers=headers, body=file, patient=True)


def add_dataset(
    name: str, splits: Mapping[str, str | Path] | str | Path, *, progress: Progress | None = None
) -> Generator[Any, Any, Dataset]:
    """Upload files or folders and make them a new version of a dataset.

    Args:
        name: of the dataset.
        splits: file or folder by split (train, validation, test), or the one for train. A folder is sent as a zip.
        progress: called with bytes sent and all bytes of the file at hand.

    Raises:
        DataError: the service cannot read the data.
        InvalidInput: there is no such file, or a split has another name.
    """
    paths = {"train": splits} if isinstance(splits, (str, Path)) else dict(splits)
    for split in paths:
        if split not in SPLITS:
            raise InvalidInput(f"unknown split {split!r}", where="splits", remedy=f"Known: {', '.join(SPLITS)}")
    files = {}
    for split, path in paths.items():
        files[split] = yield from _upload_packed(Path(path), progress)
    return (yield from _send("POST", Dataset, NewDataset(name=name, splits=files), "datasets", patient=True))


def _upload_packed(path: Path, progress: Progress | None) -> Generator[Any, Any, SplitFile]:
    """Send a file, or a folder (or table with its pictures) as one archive."""
    from yunmo.data.sources.pack import pack

    if not path.exists():
        raise InvalidInput("no such file or folder", where=str(path))
    with tempfile.TemporaryDirectory(prefix="yunmo-") as folder:
        packed = yield from Work(lambda: pack(path, Path(folder) / f"{path.resolve().stem}.zip"))
        stored = yield from upload(packed, progress=progress)
    return SplitFile(digest=stored.digest, filename=packed.name, size=stored.size)


def datasets() -> Call[list[Dataset]]:
    """List the versions of all datasets."""
    return _get(list[Dataset], "datasets")


def dataset(reference: str) -> Call[Dataset]:
    """Return a dataset version: ``NAME:V``, or ``NAME`` for the newest."""
    name, version, _ = split_reference(reference)
    return _get(Dataset, "datasets", name, *([version] if version else []))


# --- runs ---


def train(
    recipe: Recipe,
    *,
    target: str | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Generator[Any, Any, Run]:
    """Begin a run: upload the recipe's files (of data, unless it names a dataset) and have the recipe carried out.

    Args:
        recipe: plain data, or the path of a YAML file.
        target: column of a table that is to be predicted, if the recipe names no outputs.
        folder: what paths of the recipe are relative to; by default the recipe's own folder.
        progress: called with bytes sent and all bytes of the file at hand.

    Raises:
        RecipeError: a key or value that does not fit.
        DataError: the data cannot be read.
    """
    data, where, base = _recipe_data(recipe, folder)
    checked = recipe_from(data, where=where)
    embeddings = _embedding_files(data, base)
    data = yield from _with_pretrained(data, checked, base, progress)
    if checked.data.dataset is None:
        paths = {
            split: base / path for split in SPLITS if isinstance(path := getattr(checked.data, split), str) and path
        }
        name = checked.name or name_from_stem(paths["train"].resolve().stem)
        added = yield from add_dataset(name, paths, progress=progress)
        rest = {key: value for key, value in data["data"].items() if key not in (*SPLITS, "digests")}
        data = {**data, "name": name, "data": {**rest, "dataset": f"{added.name}:{added.version}"}}
    data = yield from _with_embeddings(data, embeddings, progress)
    return (yield from _send("POST", Run, NewRun(recipe=data, target=target), "runs"))


def _embedding_files(data: Mapping[str, Any], base: Path) -> dict[int, Path]:
    """Return the files of embeddings that are still to be sent, by the place of their input.

    Raises:
        InvalidInput: one of them is not there.
    """
    found = {}
    for index, field in enumerate(data.get("inputs") or ()):
        asked = field.get("embeddings")
        if asked and not asked.get("digest"):
            found[index] = base / asked["file"]
            if not found[index].is_file():
                where = f"recipe, input {field['name']}, embeddings"
                raise InvalidInput(f"no such file: {found[index]}", where=where)
    return found


def _with_embeddings(
    data: dict[str, Any], files: Mapping[int, Path], progress: Progress | None
) -> Generator[Any, Any, dict[str, Any]]:
    """Upload files of embeddings, and return the recipe with names and digests in the place of paths."""
    inputs = list(data.get("inputs") or ())
    for index, path in files.items():
        stored = yield from upload(path, progress=progress)
        sent = {**inputs[index]["embeddings"], "file": path.name, "digest": stored.digest}
        inputs[index] = {**inputs[index], "embeddings": sent}
    return {**data, "inputs": inputs} if files else data


def _with_pretrained(
    data: dict[str, Any], recipe: SpecRecipe, base: Path, progress: Progress | None
) -> Generator[Any, Any, dict[str, Any]]:
    """Send the folders of pretrained encoders; return the recipe with their names and digests instead of paths.

    A folder that is not here is taken to be on the service already if the recipe has its digest, as a resolved one has.
    """
    from yunmo.data.pretrained.folder import pack_pretrained

    changed: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(data))
    for index, encoder in pretrained_encoders(recipe):
        path = base / encoder.folder
        digest = encoder.digest
        if digest is None or path.exists():
            with tempfile.TemporaryDirectory(prefix="yunmo-") as place:
                packed = yield from Work(partial(pack_pretrained, path, Path(place) / "encoder.zip"))
                found = f"sha256:{file_digest(packed)}"
                if digest not in (None, found):
                    raise RecipeError(
                        f"the folder is not what it was: {found}, and the recipe has {digest}",
                        where=f"inputs[{index}].encoder.folder",
                        remedy="Give the folder of that time, or leave digest out",
                    )
                digest = (yield from upload(packed, progress=progress)).digest
        changed["inputs"][index]["encoder"] |= {"folder": path.resolve().name, "digest": digest}
    return changed


def _recipe_data(recipe: Recipe, folder: str | Path | None) -> tuple[dict[str, Any], str, Path]:
    """Return a recipe's plain data, its name for messages, and what its paths are relative to."""
    if isinstance(recipe, Mapping):
        return dict(recipe), "recipe", Path(folder or ".")
    path = Path(recipe)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML: {getattr(error, 'problem', error)}", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=str(path)) from None
    recipe_from(data, where=str(path))
    return dict(data), str(path), Path(folder) if folder is not None else path.parent


def runs() -> Call[list[Run]]:
    """List the runs, newest first."""
    return _get(list[Run], "runs")


def run(run_id: str) -> Call[Run]:
    """Return a run."""
    return _get(Run, "runs", run_id)


def cancel(run_id: str) -> Call[Run]:
    """Ask a run to stop; it writes its checkpoint first and can be resumed."""
    return _send("POST", Run, {}, "runs", run_id, "cancel")


def resume(run_id: str) -> Call[Run]:
    """Let a stopped or failed run go on from its last checkpoint."""
    return _send("POST", Run, {}, "runs", run_id, "resume")


def report(run_id: str) -> Call[dict[str, Any]]:
    """Return the report of a finished run."""
    return _get(dict[str, Any], "runs", run_id, "report")


def report_html(run_id: str) -> Call[str]:
    """Return the report of a finished run as one self-contained HTML page."""
    return Call("GET", _path("runs", run_id, "report"), lambda data: data.decode(), headers={"accept": "text/html"})


def log(run_id: str) -> Call[str]:
    """Return what a run's process wrote."""
    return Call("GET", _path("runs", run_id, "log"), lambda data: data.decode(errors="replace"))


# --- models ---


def models() -> Call[list[ModelVersion]]:
    """List the versions of all models."""
    return _get(list[ModelVersion], "models")


def versions(name: str) -> Call[list[ModelVersion]]:
    """List the versions of one model."""
    return _get(list[ModelVersion], "models", name)


def model(reference: str) -> Generator[Any, Any, ModelVersion]:
    """Return a model version: ``NAME:V``, ``NAME@ALIAS``, or ``NAME`` for the newest.

    Raises:
        NotFound: there is none.
    """
    name, version, alias = split_reference(reference)
    if version is not None:
        return (yield from _get(ModelVersion, "models", name, version))
    known = yield from versions(name)
    if alias is not None:
        known = [each for each in known if alias in each.aliases]
    if not known:
        raise NotFound("no such model version", where=reference, remedy="List them with `yunmo models ls`")
    return max(known, key=lambda each: each.version)


def _of_version(reference: str, call: type[T], *parts: str) -> Generator[Any, Any, T]:
    found = yield from model(reference)
    return (yield from _get(call, "models", found.model, found.version, *parts))


def verify(reference: str) -> Generator[Any, Any, Verification]:
    """Check a version's signature and every byte of its bundle."""
    return _of_version(reference, Verification, "verify")


def model_report(reference: str) -> Generator[Any, Any, dict[str, Any]]:
    """Return the report that is in a version's bundle."""
    return _of_version(reference, dict[str, Any], "report")


def model_bom(reference: str) -> Generator[Any, Any, dict[str, Any]]:
    """Return the bill of materials that is in a version's bundle: CycloneDX."""
    return _of_version(reference, dict[str, Any], "bom")


def export(reference: str, path: str | Path) -> Generator[Any, Any, Path]:
    """Write a version's bundle to a file.

    Raises:
        StorageFull: no space left; nothing half written is kept.
    """
    found = yield from model(reference)
    target = Path(path)
    yield from Call("GET", _path("models", found.model, found.version, "bundle"), _nothing, into=target, patient=True)
    return target


def import_bundle(path: str | Path, *, progress: Progress | None = None) -> Call[ModelVersion]:
    """Send a bundle's file; it becomes the next version of the model that it names.

    Raises:
        BundleError: it is no bundle, is damaged, or its signature is not one that the workspace trusts.
    """
    file = FileBody(Path(path), progress)
    headers = {**_BYTES, "content-length": str(file.size)}
    return Call("POST", _path("models"), decoder(ModelVersion), headers=headers, body=file, patient=True)


def import_model(
    path: str | Path,
    *,
    name: str | None = None,
    fields: Mapping[str, Any] | str | Path | None = None,
    progress: Progress | None = None,
) -> Generator[Any, Any, ModelVersion]:
    """Send a file and have it become a model version: a bundle as it is, or an ONNX file, of which one is made.

    Args:
        path: the file; what it is shows in its first bytes.
        name: of an ONNX file's model; by default the file's.
        fields: how the tensors of an ONNX file are fields: plain data, or the path of a YAML file.
        progress: called with bytes sent and all bytes.

    Raises:
        BundleError: the file is refused.
        InvalidInput: there is no such file, the fields do not fit it, or a bundle was given a name or fields.
    """
    file = Path(path)
    if _is_bundle(file):
        if name is not None or fields is not None:
            raise InvalidInput(
                "a bundle brings its own name and fields", where=str(file), remedy="Leave out --name and --fields"
            )
        return (yield from import_bundle(file, progress=progress))
    described = _fields_data(fields)
    stored = yield from upload(file, progress=progress)
    request = NewImport(
        file=SplitFile(digest=stored.digest, filename=file.name, size=stored.size), name=name, fields=described
    )
    return (yield from _send("POST", ModelVersion, request, "models", "import", patient=True))


def _is_bundle(path: Path) -> bool:
    if not path.is_file():
        raise InvalidInput("no such file", where=str(path))
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _fields_data(fields: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    if fields is None or isinstance(fields, Mapping):
        return dict(fields or {})
    try:
        data = yaml.safe_load(Path(fields).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InvalidInput(f"not valid YAML: {getattr(error, 'problem', error)}", where=str(fields)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot be read: {error}", where=str(fields)) from None
    if not isinstance(data, dict):
        raise InvalidInput("not a mapping of keys", where=str(fields), remedy="Begin with 'inputs:' or 'outputs:'")
    return data


def alias(reference: str, name: str) -> Generator[Any, Any, ModelVersion]:
    """Let an alias (``champion``, say) point to a version."""
    found = yield from model(reference)
    return (yield from _send("PUT", ModelVersion, {"version": found.version}, "models", found.model, "aliases", name))


def evaluate(
    reference: str, data: str | Path, *, progress: Progress | None = None
) -> Generator[Any, Any, dict[str, Any]]:
    """Evaluate a version on data with known answers.

    Returns:
        The metrics of each output: accuracy, precision, recall, f1 (macro), f1_micro, per_class, ...; mae, rmse, r2.
    """
    found = yield from model(reference)
    file = yield from _upload_packed(Path(data), progress)
    request = NewEvaluation(data=file)
    return (
        yield from _send(
            "POST", dict[str, Any], request, "models", found.model, found.version, "evaluate", patient=True
        )
    )


# --- endpoints ---


def deploy(
    reference: str, endpoint: str | None = None, *, canary: int | None = None, shadow: bool = False
) -> Generator[Any, Any, Endpoint]:
    """Give a model version an endpoint's traffic, a share or a copy of it; returns when every worker does so.

    Without ``canary`` and ``shadow`` it gets all traffic, and both are taken away: so a canary is promoted.

    Args:
        reference: ``NAME:V``, ``NAME@ALIAS``, or ``NAME`` for the newest.
        endpoint: made if it is new; by default it is called as the model.
        canary: percent (1 to 99) of the requests that it answers beside the live version.
        shadow: whether it is shown every request, and its answers are compared and never returned.

    Raises:
        BundleError: a worker refused it; then everything is as before.
    """
    found = yield from model(reference)
    request = NewDeployment(model=f"{found.model}:{found.version}", canary=canary, shadow=shadow)
    return (yield from _send("PUT", Endpoint, request, "endpoints", endpoint or found.model, patient=True))


def rollback(endpoint: str) -> Call[Endpoint]:
    """Take an endpoint's canary and shadow away; without one, send its traffic back to the version before."""
    return _send("POST", Endpoint, {}, "endpoints", endpoint, "rollback", patient=True)


def endpoints() -> Call[list[Endpoint]]:
    """List the endpoints."""
    return _get(list[Endpoint], "endpoints")


def endpoint(name: str) -> Call[Endpoint]:
    """Return an endpoint."""
    return _get(Endpoint, "endpoints", name)


def set_endpoint(
    name: str,
    *,
    concurrency: int | UnsetType | None = UNSET,
    queue: int | UnsetType | None = UNSET,
    timeout: float | UnsetType | None = UNSET,
    sticky: Sticky | UnsetType | None = UNSET,
) -> Call[Endpoint]:
    """Change an endpoint's limits, over all workers, and stickiness; what is left out stays, None resets.

    Args:
        name: of the endpoint.
        concurrency: requests in progress.
        queue: rows that wait.
        timeout: seconds that a request may take.
        sticky: what decides whether the canary answers a request that does not say: chance, or its key.
    """
    given = {"concurrency": concurrency, "queue": queue, "timeout": timeout, "sticky": sticky}
    body = {key: value for key, value in given.items() if value is not UNSET}
    return _send("PATCH", Endpoint, body, "endpoints", name, patient=True)


def delete_endpoint(name: str) -> Call[None]:
    """Take an endpoint away; the model stays."""
    return Call("DELETE", _path("endpoints", name), _nothing)


def schema(endpoint: str) -> Call[dict[str, Any]]:
    """Return the JSON Schemas of what an endpoint takes and answers."""
    return _get(dict[str, Any], "endpoints", endpoint, "schema")


def predict(endpoint: str, rows: Iterable[Mapping[str, Any]]) -> Flow[list[dict[str, Any]]]:
    """Ask an endpoint about rows.

    Args:
        endpoint: its name.
        rows: each a value for every input field; pictures as base64 text or bytes.

    Returns:
        For each row the prediction of every output: ``{"label": {"value": "cat", "probability": 0.93, ...}}``.
    """
    body = json_body([dict(row) for row in rows])
    return Call("POST", _path("endpoints", endpoint, "predict"), _predictions, headers=_JSON, body=body)


def predict_raw(endpoint: str, body: bytes, media_type: str) -> Flow[list[dict[str, Any]]]:
    """Ask an endpoint with one input about raw bytes, such as a JPEG file's (``image/jpeg``)."""
    headers = {"content-type": media_type}
    return Call("POST", _path("endpoints", endpoint, "predict"), _predictions, headers=headers, body=body)


class _Predictions(msgspec.Struct):
    predictions: list[dict[str, Any]]


_decode_predictions = decoder(_Predictions)


def _predictions(data: bytes) -> list[dict[str, Any]]:
    return _decode_predictions(data).predictions


# --- jobs ---


def start_job(endpoint: str, dataset: str, *, split: str = "train", name: str | None = None) -> Call[Job]:
    """Have an endpoint's live version answer every row of a dataset's split; the service does it by itself.

    Args:
        endpoint: its name.
        dataset: ``NAME`` or ``NAME:V``.
        split: train, validation or test.
        name: of the dataset that the answers become a version of; by default ``NAME-answers``.
    """
    return _send("POST", Job, NewJob(dataset=dataset, split=split, name=name), "endpoints", endpoint, "jobs")


def jobs(endpoint: str) -> Call[list[Job]]:
    """List an endpoint's jobs, newest first."""
    return _get(list[Job], "endpoints", endpoint, "jobs")


def job(endpoint: str, job_id: str) -> Call[Job]:
    """Return a job, and how far it is."""
    return _get(Job, "endpoints", endpoint, "jobs", job_id)


def cancel_job(endpoint: str, job_id: str) -> Call[Job]:
    """Ask a job to stop; what is answered is kept, and it can be resumed."""
    return _send("POST", Job, {}, "endpoints", endpoint, "jobs", job_id, "cancel")


def resume_job(endpoint: str, job_id: str) -> Call[Job]:
    """Let a failed or cancelled job go on after the last row that was kept."""
    return _send("POST", Job, {}, "endpoints", endpoint, "jobs", job_id, "resume")


# --- keys ---


def keys() -> Call[list[Key]]:
    """List the keys, without their secrets."""
    return _get(list[Key], "keys")


def create_key(
    name: str,
    *,
    scopes: Sequence[str] = ("predict",),
    endpoints: Sequence[str] | None = None,
    expires_in: float | None = None,
) -> Call[CreatedKey]:
    """Make a key; its secret is in this answer and never shown again.

    Args:
        name: what it is for.
        scopes: predict, read, write, admin.
        endpoints: that it may call; by default all.
        expires_in: seconds until it no longer works; by default never.
    """
    limited = list(endpoints) if endpoints is not None else None
    request = NewKey(name=name, scopes=list(scopes), endpoints=limited, expires_in=expires_in)
    return _send("POST", CreatedKey, request, "keys")


def create_first_key() -> Call[CreatedKey]:
    """Make the first key of an installation.

    Raises:
        Conflict: there was one before.
    """
    return Call("POST", _path("keys", "first"), decoder(CreatedKey))


def revoke_key(key_id: str) -> Call[None]:
    """End a key's life."""
    return Call("DELETE", _path("keys", key_id), _nothing)
