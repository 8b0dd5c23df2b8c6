"""LitServe with the settings that were fastest here: see benchmarks/serving/README.md."""

# ruff: noqa: D101, D102, ARG002 - written as a user of that framework writes it: the names are the framework's

from __future__ import annotations

import io
import os
import sys

import litserve as ls
import numpy as np
import onnxruntime as ort
from PIL import Image

BATCH = int(os.environ.get("LITSERVE_BATCH", "1"))
BATCH_SECONDS = float(os.environ.get("LITSERVE_BATCH_SECONDS", "0"))


class OnnxAPI(ls.LitAPI):
    def __init__(self, variable: str, **options: object) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=BATCH_SECONDS, **options)
        self.variable = variable

    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.model = ort.InferenceSession(os.environ[self.variable], options, providers=["CPUExecutionProvider"])

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        if BATCH == 1:
            batch = batch[None]
        answers = self.model.run(None, {"input": batch})[0]
        return answers[0] if BATCH == 1 else answers

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        return {"probabilities": output.tolist()}


class PixelsAPI(OnnxAPI):
    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["inputs"], np.float32).reshape(3, 32, 32)


class PictureAPI(OnnxAPI):
    def decode_request(self, request) -> np.ndarray:
        picture = Image.open(io.BytesIO(request["image"].file.read())).convert("RGB").resize((32, 32))
        return np.ascontiguousarray((np.asarray(picture, np.float32) / 255).transpose(2, 0, 1))


class NumbersAPI(OnnxAPI):
    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["inputs"], np.float32)


class NamedAPI(OnnxAPI):
    def decode_request(self, request: dict) -> np.ndarray:
        return np.array([request[f"feature_{place:02}"] for place in range(30)], np.float32)


if __name__ == "__main__":
    # One LitServer for one model, as its own worker processes are per API: only the API under test is started.
    which = os.environ["LITSERVE_API"]
    kinds = {
        "cnn": (PixelsAPI, "CNN", 1),
        "picture": (PictureAPI, "CNN", 1),
        "mlp": (NumbersAPI, "MLP", 2),
        "named": (NamedAPI, "MLP", 2),
    }
    kind, variable, servers = kinds[which]
    server = ls.LitServer(kind(variable, api_path="/predict"), accelerator="cpu", devices=1, workers_per_device=2)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=int(os.environ.get("LITSERVE_SERVERS", servers)),
        log_level="error",
        generate_client_file=False,
    )
