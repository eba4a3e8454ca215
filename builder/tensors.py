"""Tensors and signatures, and the one dtype table: numpy ↔ ONNX ↔ Triton ↔ OpenVINO ↔ TensorRT.

Sources: Triton `model_config.proto` (DataType), `onnx.TensorProto.DataType`, the data type tables of Triton's backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class DType:
    """One element type in every vocabulary; None where that library does not have it."""

    numpy: str
    onnx: int
    triton: str
    wire: str
    openvino: str | None
    tensorrt: str | None

    @property
    def is_float(self) -> bool:
        """True for the types compared with a tolerance; all others are compared for equality."""
        return self.numpy in ("float16", "float32", "float64", "bfloat16")


DTYPES: Final[tuple[DType, ...]] = (
    DType("bool", 9, "TYPE_BOOL", "BOOL", "boolean", "BOOL"),
    DType("uint8", 2, "TYPE_UINT8", "UINT8", "u8", "UINT8"),
    DType("uint16", 4, "TYPE_UINT16", "UINT16", "u16", None),
    DType("uint32", 12, "TYPE_UINT32", "UINT32", "u32", None),
    DType("uint64", 13, "TYPE_UINT64", "UINT64", "u64", None),
    DType("int8", 3, "TYPE_INT8", "INT8", "i8", "INT8"),
    DType("int16", 5, "TYPE_INT16", "INT16", "i16", None),
    DType("int32", 6, "TYPE_INT32", "INT32", "i32", "INT32"),
    DType("int64", 7, "TYPE_INT64", "INT64", "i64", "INT64"),
    DType("float16", 10, "TYPE_FP16", "FP16", "f16", "HALF"),
    DType("float32", 1, "TYPE_FP32", "FP32", "f32", "FLOAT"),
    DType("float64", 11, "TYPE_FP64", "FP64", None, None),
    DType("bfloat16", 16, "TYPE_BF16", "BF16", None, "BF16"),
    DType("string", 8, "TYPE_STRING", "BYTES", None, None),
)

BY_NUMPY: Final = {row.numpy: row for row in DTYPES} | {"object": DTYPES[-1], "str": DTYPES[-1]}
BY_ONNX: Final = {row.onnx: row for row in DTYPES}
BY_TRITON: Final = {row.triton: row for row in DTYPES}
BY_WIRE: Final = {row.wire: row for row in DTYPES}
BY_OPENVINO: Final = {row.openvino: row for row in DTYPES if row.openvino}

Dim = int | str
Sizes = tuple[int, ...]


def reshaped(sizes: Sizes, before: Sizes, after: Sizes) -> Sizes:
    """`sizes` of the form `before` in the form `after`, as Triton's reshape has it: open sizes keep their order."""
    open_sizes = iter(size for size, dim in zip(sizes, before, strict=True) if dim < 0)
    return tuple(next(open_sizes) if dim < 0 else dim for dim in after)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor. A dimension is a size, or a name where any size goes; equal names mean equal sizes.

    `shape` is the full shape with the batch axis, `()` for a scalar; `dtype` is a numpy name, or `string`.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    @property
    def dynamic_axes(self) -> tuple[int, ...]:
        """Positions whose size is not fixed."""
        return tuple(axis for axis, dim in enumerate(self.shape) if isinstance(dim, str))

    @property
    def wire_shape(self) -> tuple[int, ...]:
        """The full shape in Triton's form: -1 where any size goes."""
        return tuple(dim if isinstance(dim, int) else -1 for dim in self.shape)

    def describe(self) -> str:
        """`image float32[batch,3,224,224]`."""
        return f"{self.name} {self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """What goes in and what comes out, in the source's order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs

    @property
    def has_batch_axis(self) -> bool:
        """Every tensor has rank ≥ 1 and a first axis of any size (Triton's own rule for batching); not yet proven."""
        return bool(self.inputs) and all(tensor.shape and isinstance(tensor.shape[0], str) for tensor in self.tensors)

    def describe(self) -> str:
        """`x float32[batch,3] → y float32[batch,10]`."""
        sides = (", ".join(tensor.describe() for tensor in side) for side in (self.inputs, self.outputs))
        return " → ".join(sides)
