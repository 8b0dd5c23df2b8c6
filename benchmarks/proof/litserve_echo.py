"""LitServe with the echo model and its batching on: one row a request. Run in LitServe's own environment."""

# ruff: noqa: D101, D102, ARG002 - written as a user of that framework writes it: the names are the framework's

from __future__ import annotations

import os
import sys

import litserve as ls
import numpy as np
import onnxruntime as ort


class Echo(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = ort.InferenceSession(os.environ["ECHO"], providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["inputs"][0], np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return self.model.run(None, {"marker": batch})[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, list[list[float]]]:
        return {"outputs": [output.tolist()]}


if __name__ == "__main__":
    api = Echo(max_batch_size=8, batch_timeout=0.002, api_path="/predict")
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)
