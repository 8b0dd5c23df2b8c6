"""An ONNX runtime for MLServer, as its documentation says to write one."""

# ruff: noqa: D101, D102 - written as a user of that framework writes it: the names are the framework's

from __future__ import annotations

import base64
import io

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from PIL import Image


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._model = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        self._input = self._model.get_inputs()[0].name
        self._output = self._model.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        if given.datatype == "BYTES":
            data = given.data[0]
            picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").resize((32, 32))
            tensor = np.ascontiguousarray((np.asarray(picture, np.float32) / 255).transpose(2, 0, 1))[None]
        else:
            tensor = NumpyCodec.decode_input(given).astype(np.float32, copy=False)
        (answer,) = self._model.run(None, {self._input: tensor})
        output = NumpyCodec.encode_output(self._output, answer)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])
