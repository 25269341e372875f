"""The tensors of the Open Inference Protocol v2 on the wire: JSON, and its binary extension.

The protocol is that of KServe, Triton and MLServer. It sends nothing: it makes request bodies and reads answers, and
believes no answer before it was checked.

Sources: the protocol's REST specification and its binary tensor data extension, both in KServe's documentation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BadModel, EdgekdError
from edgekd.teachers.source import Floats

HEADER = "Inference-Header-Content-Length"
"""Length of the JSON part of a body that has a binary part behind it."""
BINARY = "binary_tensor_data"
"""The name of the extension, where a server lists it."""
_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_INPUTS = ("FP32", "FP64", "FP16", "UINT8")
_TYPES = _FLOATS | {"UINT8": "|u1"}


@dataclass(frozen=True)
class Tensor:
    """One input or output, as metadata declares it.

    Attributes:
        name, datatype: as the server calls them.
        dims: None where a size is free.
    """

    name: str
    datatype: str
    dims: tuple[int | None, ...]


@dataclass(frozen=True)
class Model:
    """What a server tells about a model.

    Attributes:
        image: the one input.
        scores: the output that holds class scores.
        told: all of it, as JSON with sorted keys: what identifies the model.
    """

    image: Tensor
    scores: Tensor
    told: str


def read_metadata(answer: Any, where: str) -> Model:
    """The one image input and the one score output of a model.

    Args:
        answer: the JSON of `GET v2/models/NAME`.
        where: for messages.

    Raises:
        BadModel: it is no metadata, or not of an image classifier.
    """
    if not isinstance(answer, dict):
        raise BadModel("its metadata is no JSON object", where=where)
    inputs, outputs = _tensors(answer, "inputs", where), _tensors(answer, "outputs", where)
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs) or "none"
        raise BadModel(f"{len(inputs)} inputs ({names}), a teacher takes one image", where=where, allowed="one input")
    if inputs[0].datatype not in _INPUTS:
        what = f"input {inputs[0].name!r} is {inputs[0].datatype}"
        raise BadModel(what, where=where, allowed=", ".join(_INPUTS))
    scores = [one for one in outputs if one.datatype in _FLOATS]
    if len(scores) != 1:
        names = ", ".join(f"{one.name} {one.datatype}" for one in outputs) or "none"
        raise BadModel(f"its outputs are {names}", where=where, allowed="one output of class scores")
    if len(scores[0].dims) not in (2, 4):
        what = f"output {scores[0].name!r} has {len(scores[0].dims)} axes"
        raise BadModel(what, where=where, allowed="class scores [N,K], or [N,K,h,w]")
    return Model(inputs[0], scores[0], json.dumps(answer, sort_keys=True))


def _tensors(answer: dict[str, Any], key: str, where: str) -> list[Tensor]:
    try:
        return [
            Tensor(str(one["name"]), str(one["datatype"]), tuple(size if size > 0 else None for size in one["shape"]))
            for one in answer.get(key) or []
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadModel(f"its metadata has no sound list of {key}", where=where) from error


def request(
    tensor: Tensor, output: str, images: NDArray[Any], number: int, binary: bool
) -> tuple[dict[str, str], bytes]:
    """Headers and body of an inference request.

    Args:
        tensor: the input.
        output: the name of the output that is wanted.
        images: `[N, ...]` as the server takes them.
        number: of the request, for the server's log.
        binary: send and ask for raw little-endian numbers behind the JSON, a tenth of the bytes.
    """
    values = np.ascontiguousarray(images, dtype=_TYPES[tensor.datatype])
    entry: dict[str, Any] = {"name": tensor.name, "shape": list(values.shape), "datatype": tensor.datatype}
    wanted: dict[str, Any] = {"name": output}
    if binary:
        entry["parameters"] = {"binary_data_size": values.nbytes}
        wanted["parameters"] = {"binary_data": True}
    else:
        entry["data"] = values.ravel().tolist()
    head = json.dumps({"id": str(number), "inputs": [entry], "outputs": [wanted]}).encode()
    if not binary:
        return {"Content-Type": "application/json"}, head
    return {"Content-Type": "application/octet-stream", HEADER: str(len(head))}, head + values.tobytes()


def scores(body: bytes, header: str | None, output: str, where: str) -> Floats:
    """The wanted output of an answer, as it is: neither its shape nor its values are checked against the question.

    Args:
        body: of the answer.
        header: the value of `HEADER`, where the answer has it.
        output: the name of the output.
        where: for messages.

    Raises:
        EdgekdError: the answer is damaged, or does not hold the output.
    """
    try:
        length = int(header) if header is not None else len(body)
        outputs = json.loads(body[:length])["outputs"]
        offset = length
        for one in outputs:
            size = int((one.get("parameters") or {}).get("binary_data_size", 0))
            if one["name"] == output:
                return _values(one, body[offset : offset + size] if "data" not in one else None)
            offset += size
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise EdgekdError(f"a damaged answer ({type(error).__name__}: {error})"[:200], where=where) from error
    raise EdgekdError(f"an answer without the output {output!r}", where=where)


def _values(one: dict[str, Any], raw: bytes | None) -> Floats:
    kind = _FLOATS[one["datatype"]]
    values = np.array(one["data"], dtype=kind) if raw is None else np.frombuffer(raw, dtype=kind)
    return values.reshape([int(size) for size in one["shape"]]).astype(np.float32)
