"""A large graph's weights are in a file of the bundle that processes share; nothing else is different."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.fixtures.onnx_files import CLASSES, WIDTH, array, linear, model, save, value
from tests.unit.packaging.conftest import Trained

from yunmo.bundle.archive import export, place, unpack
from yunmo.bundle.files import BOM, CONTENT, GRAPH, GRAPH_WEIGHTS, IMPORTED_CONTENT, MANIFEST
from yunmo.bundle.manifest import Tensor, Tensors
from yunmo.bundle.sign import new_key_pair, sign
from yunmo.bundle.verify import verify
from yunmo.core.encoders import MlpEncoder
from yunmo.core.errors import BundleError, IntegrityError, ModelFailed, Unavailable
from yunmo.core.fields import VectorField
from yunmo.inference.predictor import Predictor
from yunmo.inference.session import Session
from yunmo.packaging.imported.description import description_from
from yunmo.packaging.imported.pack import pack_imported
from yunmo.packaging.pack import pack
from yunmo.packaging.weights import ALIGNMENT, LARGE

HIDDEN = 3000
MATRIX = HIDDEN * HIDDEN * 4
MIB = 2**20
ROWS = [{"x": [0.5, -1.0, 2.0, 0.25]}, {"x": [3.0, 0.0, -0.5, 1.0]}, {"x": [0.0, 0.0, 0.0, 0.0]}]
X = np.array([row["x"] for row in ROWS], np.float32)
TENSORS = Tensors((Tensor("x", "float32", (WIDTH,)),), (Tensor("scores", "float32", (CLASSES,)),))


def large(*, typed: bool = False) -> onnx.ModelProto:
    """Return a model of x [N, 4] to scores [N, 3] over a matrix of 36 MB; ``typed``: not as raw bytes."""
    random = np.random.default_rng(0)
    shapes = {"a": (WIDTH, HIDDEN), "b": (HIDDEN, HIDDEN), "c": (HIDDEN, CLASSES)}
    weights = {name: (random.normal(size=shape) / shape[0] ** 0.5).astype(np.float32) for name, shape in shapes.items()}
    initializers = [array(name, weight) for name, weight in weights.items()]
    if typed:
        initializers[1] = helper.make_tensor("b", TensorProto.FLOAT, shapes["b"], weights["b"].ravel())
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["first"]),
        helper.make_node("Relu", ["first"], ["rectified"]),
        helper.make_node("Gemm", ["rectified", "b"], ["second"]),
        helper.make_node("Gemm", ["second", "c"], ["scores"]),
    ]
    return model(nodes, inputs=[value("x")], outputs=[value("scores", ["batch", CLASSES])], initializers=initializers)


class Made:
    """An imported bundle, signed."""

    def __init__(self, folder: Path, source: onnx.ModelProto) -> None:
        self.folder = folder / "bundle"
        self.key = folder / "signing.key"
        private, self.public = new_key_pair()
        self.key.write_text(private)
        self.whole = source.SerializeToString()
        pack_imported(save(source, folder / "model.onnx"), self.folder, name="large", description=description_from({}))
        sign(self.folder, self.key)

    def copy(self, target: Path) -> Path:
        shutil.copytree(self.folder, target)
        return target

    def open(self, folder: Path | None = None, **options: Any) -> Predictor:
        return Predictor.open(folder or self.folder, public_key_pem=self.public, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("large"), large())


@pytest.fixture(scope="module")
def expected(made: Made) -> Any:
    """What the model answers with its weights in memory."""
    return Session(made.whole, TENSORS, threads=1).run({"x": X})["scores"]


def entries(folder: Path) -> dict[str, dict[str, str]]:
    graph = onnx.load(folder / GRAPH, load_external_data=False).graph
    return {one.name: {entry.key: entry.value for entry in one.external_data} for one in graph.initializer}


def read_by_others(folder: Path) -> onnx.ModelProto:
    """Read a graph and its weights with the onnx package, which wonders at what only ONNX Runtime knows."""
    with pytest.warns(UserWarning, match="prepacked_0"):
        return onnx.load(folder / GRAPH)


def test_an_imported_models_weights_are_in_a_file_and_it_answers_the_same_to_the_bit(made: Made, expected: Any) -> None:
    assert {path.name for path in made.folder.iterdir()} >= {*IMPORTED_CONTENT, GRAPH_WEIGHTS, MANIFEST}
    assert (made.folder / GRAPH).stat().st_size < MIB
    assert made.open().run({"x": X})["scores"].tobytes() == expected.tobytes()
    manifest = verify(made.folder, made.public)
    assert manifest.format_version == 4  # for its bill of materials
    assert manifest.files[GRAPH_WEIGHTS].size >= 2 * MATRIX  # the matrix, and the order it is read in


def test_the_file_has_pages_of_its_own_name_only_and_another_reader_finds_the_weights(made: Made) -> None:
    said = entries(made.folder)
    assert {name for name, entry in said.items() if entry} == {"b"}  # the others are small
    assert said["b"]["location"] == GRAPH_WEIGHTS
    assert int(said["b"]["offset"]) % ALIGNMENT == 0
    _, place_of_order = said["b"]["prepacked_0"].split("|")
    assert int(place_of_order.split(";")[0]) % ALIGNMENT == 0
    whole = read_by_others(made.folder)
    assert whole.graph.initializer[1].raw_data == onnx.load_from_string(made.whole).graph.initializer[1].raw_data


def test_a_trained_models_weights_are_in_a_file_and_it_answers_the_same_to_the_bit(
    make: Callable[..., Trained], tmp_path: Path
) -> None:
    trained = make(VectorField(name="vector", encoder=MlpEncoder(hidden=(HIDDEN, HIDDEN))))
    out = tmp_path / "out" / "bundle"
    pack(trained, trained.recipe, trained.weights, trained.report, "<!doctype html>", out, name="pets")
    assert {path.name for path in out.iterdir()} == {*CONTENT, BOM, GRAPH_WEIGHTS, MANIFEST}
    assert list(out.parent.iterdir()) == [out]
    private, public = new_key_pair()
    key = tmp_path / "signing.key"
    key.write_text(private)
    sign(out, key)
    predictor = Predictor.open(out, public_key_pem=public)
    tensors = predictor.encode(trained.examples)
    whole = Session(read_by_others(out).SerializeToString(), predictor.manifest.tensors, threads=1)
    assert predictor.run(tensors)["label"].tobytes() == whole.run(tensors)["label"].tobytes()


def test_weights_that_are_written_as_numbers_become_bytes(tmp_path: Path, expected: Any) -> None:
    made = Made(tmp_path, large(typed=True))
    assert entries(made.folder)["b"]["location"] == GRAPH_WEIGHTS
    assert made.open().run({"x": X})["scores"].tobytes() == expected.tobytes()


def test_a_small_model_is_as_before(tmp_path: Path) -> None:
    made = Made(tmp_path, linear())
    assert not (made.folder / GRAPH_WEIGHTS).exists()
    assert GRAPH_WEIGHTS not in verify(made.folder, made.public).files
    assert not any(entries(made.folder).values())
    assert LARGE > MIB


def test_the_same_model_gives_the_same_file(made: Made, tmp_path: Path) -> None:
    again = Made(tmp_path, large())
    assert (again.folder / MANIFEST).read_bytes() == (made.folder / MANIFEST).read_bytes()


def test_where_the_processor_wants_another_order_answers_are_the_same(
    made: Made, expected: Any, tmp_path: Path
) -> None:
    folder = made.copy(tmp_path / "elsewhere")
    model = onnx.load(folder / GRAPH, load_external_data=False)
    (order,) = [one for one in model.graph.initializer[1].external_data if one.key == "prepacked_0"]
    key, rest = order.value.split("|", 1)
    order.value = f"{key[:-3]}123|{rest}"
    data = model.SerializeToString()
    assert Session(data, TENSORS, threads=1, folder=folder).run({"x": X})["scores"].tobytes() == expected.tobytes()


def change(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(ALIGNMENT)
        opened.write(b"changed")


def cut(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(ALIGNMENT)


@pytest.mark.parametrize("tamper", [change, cut, Path.unlink])
@pytest.mark.parametrize("isolated", [False, True])
def test_weights_that_are_not_as_signed_are_refused(
    made: Made, tmp_path: Path, tamper: Callable[[Path], None], isolated: bool
) -> None:
    folder = made.copy(tmp_path / "bundle")
    tamper(folder / GRAPH_WEIGHTS)
    with pytest.raises(IntegrityError) as caught:
        made.open(folder, isolated=isolated)
    assert caught.value.where == GRAPH_WEIGHTS


@pytest.mark.parametrize("location", ["/etc/passwd", "../graph.bin", "graph.bim", "x" * 150])
def test_a_signed_graph_that_names_another_file_is_refused(made: Made, location: str) -> None:
    model = onnx.load(made.folder / GRAPH, load_external_data=False)
    (said,) = [one for one in model.graph.initializer[1].external_data if one.key == "location"]
    said.value = location
    with pytest.raises(BundleError, match="not the bundle's"):
        Session(model.SerializeToString(), TENSORS, threads=1, folder=made.folder)


def test_a_graph_that_names_the_file_in_a_bundle_without_it_is_refused(made: Made) -> None:
    with pytest.raises(BundleError, match="not the bundle's"):
        Session((made.folder / GRAPH).read_bytes(), TENSORS, threads=1)


def test_notes_called_location_are_no_files() -> None:
    noted = linear()
    noted.graph.node[0].metadata_props.add(key="location", value="/etc/passwd")
    Session(noted.SerializeToString(), TENSORS, threads=1)


def test_a_process_of_its_own_maps_them_too_and_looks_again_before_another_does(
    made: Made, expected: Any, tmp_path: Path
) -> None:
    folder = made.copy(tmp_path / "bundle")
    predictor = made.open(folder, isolated=True)
    try:
        session: Any = predictor._session
        assert predictor.run({"x": X})["scores"].tobytes() == expected.tobytes()
        assert "graph.bin" in Path(f"/proc/{session.pid}/maps").read_text()
        change(folder / GRAPH_WEIGHTS)
        session._child.kill()
        with pytest.raises(ModelFailed):
            predictor.run({"x": X})
        with pytest.raises(Unavailable):
            predictor.run({"x": X})
    finally:
        predictor.close()


def test_it_is_exported_and_unpacked_read_only(made: Made, tmp_path: Path) -> None:
    export(made.folder, tmp_path / "bundle.zip")
    folder = tmp_path / "unpacked"
    unpack(tmp_path / "bundle.zip", folder)
    read_only(folder)
    target = tmp_path / "served" / "bundle"
    target.parent.mkdir()
    place(folder, target)
    read_only(target)
    assert not folder.exists()
    made.open(target)
    place(made.copy(tmp_path / "again"), target)
    assert (tmp_path / "again").exists()


def read_only(folder: Path) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}


PROGRAM = """
import sys
from pathlib import Path
from yunmo.inference.predictor import Predictor
predictor = Predictor.open(Path(sys.argv[1]), public_key_pem=sys.argv[2])
predictor.predict([{"x": [1.0, 2.0, 3.0, 4.0]}] * 3)
print("ready", flush=True)
sys.stdin.read()
"""


class Workers:
    """Processes that have the model open."""

    def __init__(self, made: Made) -> None:
        self.command = [sys.executable, "-c", PROGRAM, str(made.folder), made.public]
        self.running: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        worker = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"

    def pss(self) -> list[tuple[float, float]]:
        """Return for each the bytes that it holds, and those of them that are the weights' file."""
        return [(self._pss(worker.pid, ""), self._pss(worker.pid, GRAPH_WEIGHTS)) for worker in self.running]

    def _pss(self, pid: int, mapping: str) -> float:
        total, counts = 0.0, False
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                counts = line.endswith(mapping)
            elif words[0] == "Pss:" and counts:
                total += int(words[1]) * 1024
        return total

    def end(self) -> None:
        for worker in self.running:
            worker.communicate()


@pytest.fixture
def workers(made: Made) -> Iterator[Workers]:
    workers = Workers(made)
    yield workers
    workers.end()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_processes_share_one_copy(workers: Workers) -> None:
    workers.start()
    ((one, mapped),) = workers.pss()
    assert mapped > 0.9 * MATRIX
    workers.start()
    both = workers.pss()
    assert sum(weights for _, weights in both) < 1.2 * MATRIX
    assert sum(held for held, _ in both) < 2 * one - 0.7 * MATRIX
    # Nor does any of them have another copy: Python, numpy and ONNX Runtime are the rest.
    assert all(held - weights < 3.5 * MATRIX for held, weights in both)
