"""The service that a competent person writes by hand: FastAPI, pydantic, ONNX Runtime. Run by uvicorn.

No keys, no limits, no metrics and no log: less than it would need, to its favour. The model runs in the thread pool, as
FastAPI's documentation has it for what blocks; with ``RUN=loop`` on the event loop, where an answer takes less time of
the processor and everybody else waits for it.
"""

# ruff: noqa: D101, D103 - written as a user of that framework writes it: the names are the framework's

from __future__ import annotations

import io
import os
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from pydantic import BaseModel, Field, create_model


def open_model(name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(os.environ[name], options, providers=["CPUExecutionProvider"])


app = FastAPI()
ON_LOOP = os.environ.get("RUN") == "loop"
cnn, mlp = open_model("CNN"), open_model("MLP")


class Pixels(BaseModel):
    inputs: Annotated[list[float], Field(min_length=3072, max_length=3072)]


class Numbers(BaseModel):
    inputs: Annotated[list[float], Field(min_length=30, max_length=30)]


Named: Any = create_model("Named", **{f"feature_{place:02}": (float, ...) for place in range(30)})


class Answer(BaseModel):
    probabilities: list[float]


def compute(model: ort.InferenceSession, tensor: np.ndarray) -> Answer:
    return Answer(probabilities=model.run(None, {"input": tensor})[0][0].tolist())


async def run(model: ort.InferenceSession, tensor: np.ndarray) -> Answer:
    return compute(model, tensor) if ON_LOOP else await run_in_threadpool(compute, model, tensor)


@app.post("/cnn")
async def predict_pixels(body: Pixels) -> Answer:
    return await run(cnn, np.asarray(body.inputs, np.float32).reshape(1, 3, 32, 32))


@app.post("/cnn/tensor")
async def predict_tensor(request: Request) -> Answer:
    body = await request.body()
    if len(body) != 4 * 3072:
        raise HTTPException(422, "send 3072 float32 values")
    return await run(cnn, np.frombuffer(body, np.float32).reshape(1, 3, 32, 32))


@app.post("/cnn/picture")
async def predict_picture(request: Request) -> Answer:
    try:
        picture = Image.open(io.BytesIO(await request.body())).convert("RGB").resize((32, 32))
    except OSError:
        raise HTTPException(422, "not a picture") from None
    pixels = np.asarray(picture, np.float32) / 255
    return await run(cnn, np.ascontiguousarray(pixels.transpose(2, 0, 1))[None])


@app.post("/mlp")
async def predict_numbers(body: Numbers) -> Answer:
    return await run(mlp, np.asarray(body.inputs, np.float32)[None])


@app.post("/mlp/named")
async def predict_named(body: Named) -> Answer:  # type: ignore[valid-type]  # made at run time, from 30 names
    return await run(mlp, np.array([list(dict(body).values())], np.float32))


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}
