"""The model in KServe's Python server: `kserve_server.py PORT`."""

from __future__ import annotations

import sys

import model
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Served(Model):
    def __init__(self) -> None:
        super().__init__("served")
        self.ready = True

    async def get_input_types(self) -> list[dict]:
        return [model.INPUT]

    async def get_output_types(self) -> list[dict]:
        return [model.OUTPUT]

    def predict(self, payload: InferRequest, headers: dict | None = None, response_headers: dict | None = None):
        logits = model.answer(payload.inputs[0].as_numpy())
        output = InferOutput("logits", list(logits.shape), "FP32")
        binary = any(wanted.binary_data for wanted in payload.request_outputs or [])
        output.set_data_from_numpy(logits, binary_data=binary)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([Served()])
