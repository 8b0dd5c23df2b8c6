"""The servers under test: how each is started, and how it wants to be asked."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from benchmarks.service import Yunmo
from benchmarks.serving import environments, grpc_body, processes
from benchmarks.serving.cases import TOLERANCE, Case, Sample, Server
from benchmarks.serving.load import Variant, request
from benchmarks.serving.models import CLASSES, FEATURES
from benchmarks.serving.places import answers, free_port, wait_until

_PEERS = Path(__file__).with_name("peers")
_START_SECONDS = 90.0
_JSON = {"content-type": "application/json"}
_PROBABILITIES, _DATA = b'"probabilities":', b'"data":'


class Running(Protocol):
    """A server that is up."""

    port: int
    grpc_port: int | None
    key: str
    """API key; empty where none is needed."""

    def pids(self) -> list[int]:
        """Return all its processes."""
        ...

    def worker_pids(self) -> list[int]:
        """Return those that answer requests."""
        ...

    def variants(self, case: Case, samples: list[Sample]) -> list[Variant]:
        """Return the requests of a case."""
        ...


class Backend(Protocol):
    """A kind of server."""

    name: str

    def group(self, case: Case) -> str | None:
        """Return what must be running for a case: cases of one group share a start; None: it cannot do the case."""
        ...

    def start(self, group: str) -> contextlib.AbstractContextManager[Running]:
        """Start it; it answers when the context is entered, and is gone when it is left."""
        ...


class YunmoServer:
    """Yunmo with gate, validation, metrics and request log on, as it comes."""

    def __init__(self, name: str, files: Mapping[str, Path], settings: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._files = files
        self._settings = dict(settings or {})

    def group(self, case: Case) -> str | None:  # noqa: ARG002  # it does every case
        """Every case, in one service."""
        return "all"

    @contextlib.contextmanager
    def start(self, group: str) -> Any:  # noqa: ARG002  # there is one
        """Start it with the models as endpoints: tensors as they are, and described as fields."""
        with Yunmo(workers=2, settings=self._settings) as service:
            for endpoint, (file, fields) in _endpoints(self._files).items():
                service.deploy(service.import_onnx(file, endpoint, fields), endpoint)
            yield _RunningYunmo(service, service.new_key())


class _RunningYunmo:
    def __init__(self, service: Yunmo, key: str) -> None:
        self._service = service
        self._headers = {"authorization": f"Bearer {key}"}
        self.key = key
        self.port = service.port
        self.grpc_port: int | None = service.grpc_port

    def pids(self) -> list[int]:
        return processes.tree(self._service.process.pid)

    def worker_pids(self) -> list[int]:
        return self._service.worker_pids()

    def variants(self, case: Case, samples: list[Sample]) -> list[Variant]:
        return [self._variant(case, sample) for sample in samples]

    def _variant(self, case: Case, sample: Sample) -> Variant:
        native = "/api/v1/endpoints/{}/predict"
        match case.body:
            case "jpeg":
                path, kind, body, anchor = native.format("picture"), "image/jpeg", sample.jpeg, _PROBABILITIES
            case "native":
                body = sample.json("input", nested=True)
                path, kind, anchor = native.format(case.model), "application/json", _PROBABILITIES
            case "named":
                body = json.dumps(sample.named()).encode()
                path, kind, anchor = native.format("named"), "application/json", _PROBABILITIES
            case "json" | "list":
                path, kind, body, anchor = _infer(case), "application/json", oip_json(sample), _DATA
            case "binary":
                head, data = oip_binary(sample)
                headers = {
                    "content-type": "application/octet-stream",
                    "inference-header-content-length": str(len(head)),
                }
                whole = request("POST", _infer(case), {**self._headers, **headers}, head + data)
                return Variant(whole, sample.expected, None, TOLERANCE)
            case "grpc":
                body = grpc_body.framed(grpc_body.infer_request("cnn", "input", sample.tensor[None]))
                return Variant(body, sample.expected, None, TOLERANCE)
        whole = request("POST", path, {**self._headers, "content-type": kind}, body)
        return Variant(whole, sample.expected, anchor, TOLERANCE)


class Peer:
    """A server of others, in an environment of its own."""

    def __init__(self, name: Server, files: Mapping[str, Path]) -> None:
        self.name: str = name
        self._files = files

    def group(self, case: Case) -> str | None:
        """LitServe is started for the model under test alone, as its processes are per API."""
        if case.body not in _TAKES[self.name]:
            return None
        return _LITSERVE_API[case.body, case.model] if self.name == "litserve" else "all"

    @contextlib.contextmanager
    def start(self, group: str) -> Any:
        """Start it."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("YUNMO_")}
        environment |= {name.upper(): str(path) for name, path in self._files.items()}
        environment |= {"OMP_NUM_THREADS": "1", "LITSERVE_API": group, "PYTHONPATH": str(_PEERS)}
        python = str(environments.python(self.name))
        port, grpc_port = free_port(), free_port()
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-bench-") as folder, open(f"{folder}/log", "wb") as log:
            match self.name:
                case "fastapi" | "fastapi-loop":
                    environment["RUN"] = "loop" if self.name == "fastapi-loop" else "threads"
                    command = [python, "-m", "uvicorn", "fastapi_app:app", "--port", str(port), "--workers", "2"]
                    command += ["--no-access-log", "--log-level", "warning"]
                    health = "/health"
                case "litserve":
                    command, health = [python, str(_PEERS / "litserve_app.py"), str(port)], "/health"
                case _:
                    write_mlserver(Path(folder), self._files, port, grpc_port)
                    command, health = [str(Path(python).with_name("mlserver")), "start", folder], "/v2/health/ready"
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            try:
                wait_until(lambda: answers(f"http://127.0.0.1:{port}{health}"), _START_SECONDS, f"start of {self.name}")
                yield _RunningPeer(self.name, process, port, grpc_port)
            except BaseException:
                sys.stderr.write(Path(folder, "log").read_text(errors="replace")[-3000:])
                raise
            finally:
                processes.stop(process)


class _RunningPeer:
    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, grpc_port: int) -> None:
        self._name = name
        self._process = process
        self.port = port
        self.grpc_port = grpc_port if name == "mlserver" else None
        self.key = ""

    def pids(self) -> list[int]:
        return processes.tree(self._process.pid)

    def worker_pids(self) -> list[int]:
        return self.pids()

    def variants(self, case: Case, samples: list[Sample]) -> list[Variant]:
        build = {"fastapi": _fastapi, "fastapi-loop": _fastapi, "litserve": _litserve, "mlserver": _mlserver}[
            self._name
        ]
        return [build(case, sample) for sample in samples]


_TAKES: dict[str, tuple[str, ...]] = {
    "fastapi": ("jpeg", "binary", "json", "named", "list"),
    "fastapi-loop": ("jpeg", "binary", "json", "named", "list"),
    "litserve": ("jpeg", "json", "named", "list"),
    "mlserver": ("jpeg", "json", "named", "list", "grpc"),
}
_LITSERVE_API = {("jpeg", "cnn"): "picture", ("json", "cnn"): "cnn", ("named", "mlp"): "named", ("list", "mlp"): "mlp"}


def oip_json(sample: Sample) -> bytes:
    """Return an Open Inference Protocol request with the tensor as numbers."""
    shape = [1, *sample.tensor.shape]
    tensor = {"name": "input", "shape": shape, "datatype": "FP32", "data": sample.numbers}
    return json.dumps({"inputs": [tensor]}).encode()


def oip_binary(sample: Sample) -> tuple[bytes, bytes]:
    """Return the JSON head and the binary tensor; the answer is wanted as binary too (as tritonclient does)."""
    data = sample.tensor.tobytes()
    tensor = {
        "name": "input",
        "shape": [1, *sample.tensor.shape],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(data)},
    }
    return json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode(), data


def _infer(case: Case) -> str:
    return f"/v2/models/{case.model}/infer"


def _endpoints(files: Mapping[str, Path]) -> dict[str, tuple[Path, dict[str, Any] | None]]:
    picture = {"name": "image", "type": "image", "layout": "NCHW", "scale": {"divide": 255.0}}
    label = {"name": "label", "type": "category", "categories": list(CLASSES)}
    numbers = [{"name": f"feature_{place:02}", "type": "number"} for place in range(FEATURES)]
    answer = {"name": "label", "type": "category", "categories": ["no", "yes"]}
    return {
        "cnn": (files["cnn"], None),
        "picture": (files["cnn"], {"inputs": [picture], "outputs": [label]}),
        "mlp": (files["mlp"], None),
        "named": (files["mlp"], {"inputs": numbers, "outputs": [answer]}),
    }


def _fastapi(case: Case, sample: Sample) -> Variant:
    match case.body:
        case "jpeg":
            whole = request("POST", "/cnn/picture", {"content-type": "image/jpeg"}, sample.jpeg)
        case "binary":
            headers = {"content-type": "application/octet-stream"}
            whole = request("POST", "/cnn/tensor", headers, sample.tensor.tobytes())
        case "named":
            whole = request("POST", "/mlp/named", _JSON, json.dumps(sample.named()).encode())
        case _:
            whole = request("POST", f"/{case.model}", _JSON, sample.json("inputs"))
    return Variant(whole, sample.expected, _PROBABILITIES, TOLERANCE)


def _litserve(case: Case, sample: Sample) -> Variant:
    headers = dict(_JSON)
    match case.body:
        case "jpeg":
            boundary = "a-boundary-that-no-picture-has"
            head = f'--{boundary}\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"\r\n'
            head += "content-type: image/jpeg\r\n\r\n"
            body = head.encode() + sample.jpeg + f"\r\n--{boundary}--\r\n".encode()
            headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        case "named":
            body = json.dumps(sample.named()).encode()
        case _:
            body = sample.json("inputs")
    return Variant(request("POST", "/predict", headers, body), sample.expected, _PROBABILITIES, TOLERANCE)


def _mlserver(case: Case, sample: Sample) -> Variant:
    if case.body == "grpc":
        body = grpc_body.framed(grpc_body.infer_request("cnn", "input", sample.tensor[None]))
        return Variant(body, sample.expected, None, TOLERANCE)
    if case.body == "jpeg":
        data = base64.b64encode(sample.jpeg).decode()
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [data]}
        body = json.dumps({"inputs": [tensor]}).encode()
    else:
        body = oip_json(sample)
    return Variant(request("POST", _infer(case), _JSON, body), sample.expected, _DATA, TOLERANCE)


def write_mlserver(folder: Path, files: Mapping[str, Path], port: int, grpc_port: int, **more: float) -> None:
    """Write MLServer's settings for ONNX files into a folder; ``more`` are settings of the models."""
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc_port, "metrics_port": free_port()}
    settings |= {"parallel_workers": 2, "debug": False, "gzip_enabled": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, file in files.items():
        (folder / name).mkdir()
        model = {"name": name, "implementation": "onnx_runtime.OnnxModel", "parameters": {"uri": str(file)}, **more}
        (folder / name / "model-settings.json").write_text(json.dumps(model))
