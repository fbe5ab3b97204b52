"""The messages of TensorFlow Serving's gRPC API that a client needs, without TensorFlow.

The package tensorflow-serving-api needs TensorFlow for the same few messages. Those here have the numbers and types of
its .proto files (tensorflow/serving, apis/, and tensorflow/core/framework/tensor.proto), so they are the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
AVAILABLE = 30
"""`ModelVersionStatus.State.AVAILABLE`."""

PACKAGE = "emotion_tf.serving"  # any name: it is not sent
Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShapeProto": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),  # an enum, which is sent as a number
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "double_val": (6, "repeated double"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
        "bool_val": (11, "repeated bool"),
    },
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "map TensorProto")},
    "PredictResponse": {"outputs": (1, "map TensorProto"), "model_spec": (2, "ModelSpec")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32")},
    "GetModelStatusResponse": {"model_version_status": (1, "repeated ModelVersionStatus")},
}
"""Message -> field -> number and type."""

_STRING = 7
_DTYPES: Mapping[int, tuple[np.dtype[Any], str]] = {
    1: (np.dtype("<f4"), "float_val"),
    2: (np.dtype("<f8"), "double_val"),
    3: (np.dtype("<i4"), "int_val"),
    4: (np.dtype("u1"), "int_val"),
    _STRING: (np.dtype(object), "string_val"),
    9: (np.dtype("<i8"), "int64_val"),
    10: (np.dtype(bool), "bool_val"),
}
"""Number of a `DataType` -> its dtype, and the field of its values."""


def _declare() -> dict[str, Any]:
    """Returns the class of each message."""
    file = descriptor_pb2.FileDescriptorProto(name="emotion_tf_serving.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            if kind.startswith("map "):  # a map is a repeated message of keys and values
                entry = message.nested_type.add(name=f"{field.title()}Entry")
                entry.options.map_entry = True
                _add(entry, "key", 1, "string")
                _add(entry, "value", 2, kind.removeprefix("map "))
                kind = f"repeated {name}.{entry.name}"
            _add(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }


def _add(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    repeated, _, kind = kind.rpartition(" ")
    field = message.field.add(name=name, number=number)
    field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    if kind[0].isupper():
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = Field.Type.Value(f"TYPE_{kind.upper()}")


_CLASSES = _declare()
PredictRequest, PredictResponse = _CLASSES["PredictRequest"], _CLASSES["PredictResponse"]
GetModelStatusRequest = _CLASSES["GetModelStatusRequest"]
GetModelStatusResponse = _CLASSES["GetModelStatusResponse"]


def fill_request(request: Any, name: str, signature: str, inputs: Mapping[str, np.ndarray]) -> Any:
    """Fills in a `PredictRequest`, one of these or a genuine one, for a signature of a model, and returns it."""
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, value in inputs.items():
        fill_tensor(request.inputs[key], value)
    return request


def fill_tensor(proto: Any, value: np.ndarray) -> None:
    """Fills in a `TensorProto`. Strings are objects: bytes or str."""
    number = next((n for n, (dtype, _) in _DTYPES.items() if dtype == value.dtype), None)
    if number is None:
        raise TypeError(f"no dtype of TensorFlow Serving's clients: {value.dtype}")
    proto.dtype = number
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    if number == _STRING:
        proto.string_val.extend(item.encode() if isinstance(item, str) else item for item in value.ravel())
    else:
        proto.tensor_content = np.ascontiguousarray(value, _DTYPES[number][0]).tobytes()


def read_tensor(proto: Any) -> np.ndarray:
    """Returns the array in a `TensorProto`. Raises ValueError or TypeError if it is invalid.

    The message may claim a large shape and give one value for all elements. Such a tensor is refused: its array would
    take far more memory than the message.
    """
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count > proto.ByteSize():
        raise ValueError(f"a tensor of the shape {shape} in {proto.ByteSize()} bytes")
    if proto.dtype not in _DTYPES:
        raise TypeError(f"a tensor of the unknown type {proto.dtype}")
    dtype, name = _DTYPES[proto.dtype]
    if proto.tensor_content and proto.dtype != _STRING:
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape).copy()
    values = list(getattr(proto, name))
    if len(values) > count:
        raise ValueError(f"a tensor of the shape {shape} with {len(values)} values")
    last = values[-1] if values else b"" if proto.dtype == _STRING else 0  # stands for those that follow
    return np.array([*values, *[last] * (count - len(values))], dtype).reshape(shape)
