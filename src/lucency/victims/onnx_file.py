"""Look into an ONNX file without running it: is it one, and is everything inside it?

An initialiser may be "external": read from another file, at a path that the model's author chose.
Such a model could read any file of the user, so it is refused. The fields below are those of
onnx.proto3; nothing else is decoded, and nothing is allocated by what a length field claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lucency.errors import ModelError

# Message -> field number -> the message that the field holds.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}  # fmt: skip
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    value: int
    content: memoryview | None


def require_self_contained(data: bytes, file: str) -> None:
    """Raise ModelError if `data` is no ONNX model, or a tensor of it lies in another file."""
    has_graph = False
    try:
        # A stack of our own: a hostile file nests deeper than Python's.
        pending: list[tuple[str, memoryview]] = [("model", memoryview(data))]
        while pending:
            kind, message = pending.pop()
            name, is_external = "", False
            for field in _fields(message):
                inner = _INSIDE[kind].get(field.number)
                if inner is not None and field.content is not None:
                    has_graph |= inner == "graph"
                    pending.append((inner, field.content))
                elif kind == "tensor":
                    is_external |= field.number == _EXTERNAL_DATA
                    is_external |= field.number == _DATA_LOCATION and field.value != 0
                    if field.number == _TENSOR_NAME and field.content is not None:
                        name = bytes(field.content[:200]).decode("utf-8", "replace")
            if is_external:
                raise ModelError(
                    f"{file}: tensor {name!r} lies in another file, which is not read; save the "
                    "model with its weights inside, as torch.onnx.export(…, external_data=False) "
                    "does."
                )
    except (ValueError, IndexError) as error:
        raise ModelError(f"{file} must be an ONNX model; it cannot be read ({error}).") from error
    if not has_graph:
        raise ModelError(f"{file} must be an ONNX model, got a file without a graph.")


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of a protobuf message. Raises ValueError or IndexError for one that is torn."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        value, content = 0, None
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if wire == _EIGHT_BYTES else 4
        elif wire == _BYTES:
            length, at = _varint(message, at)
            content, at = message[at : at + length], at + length
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at > len(message):
            raise ValueError("it ends in the middle of a field")
        yield _Field(number, value, content)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number of more than ten bytes at byte {at}")
