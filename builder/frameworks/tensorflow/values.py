"""TensorFlow's values and ours: arrays, names of outputs, element types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.errors import SpecError
from builder.frameworks.tensorflow.framework import import_tensorflow
from builder.onnx_tools.ports import Port
from builder.tensors import BY_NUMPY, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def to_tensor(array: NDArray[np.generic], dtype: str) -> Any:  # noqa: ANN401 - tf.Tensor
    """A tensor with its own memory."""
    import numpy as np

    tf = import_tensorflow()
    if dtype == "string":
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in np.asarray(array).ravel().tolist()]
        return tf.reshape(tf.constant(texts, tf.string), array.shape)
    return tf.constant(array, dtype=dtype)


def to_array(value: Any, name: str) -> NDArray[np.generic]:  # noqa: ANN401 - tf.Tensor, tf.Variable or an array
    """An array; texts as `str`.

    Raises:
        SpecError: sparse, ragged, or texts that are no UTF-8.
    """
    import numpy as np

    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if array.dtype.kind not in "OSU":
        return array
    texts = np.empty(array.size, object)
    try:
        texts[:] = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise SpecError(f"output {name!r} holds bytes that are no UTF-8 text: {error}") from error
    return texts.reshape(array.shape)


def spec_of(tensor: Tensor, name: str) -> Any:  # noqa: ANN401 - tf.TensorSpec
    """What TensorFlow traces a function with."""
    tf = import_tensorflow()
    shape = [dim if isinstance(dim, int) else None for dim in tensor.shape]
    return tf.TensorSpec(shape, tf.dtypes.as_dtype(tensor.dtype), name)


def port_of(name: str, value: Any) -> Port:  # noqa: ANN401 - tf.TensorSpec or KerasTensor
    """The declared port.

    Raises:
        SpecError: sparse, ragged, or of a type that Triton has not.
    """
    dtype = getattr(value.dtype, "name", str(value.dtype))
    dtype = dtype.removesuffix("_ref")
    if getattr(value, "sparse", False) or getattr(value, "ragged", False) or "Tensor" not in type(value).__name__:
        raise SpecError(f"input {name!r} is a sparse or ragged tensor, which Triton does not have")
    if dtype not in BY_NUMPY:
        raise SpecError(f"input {name!r} is {dtype}, which Triton does not have")
    rank = getattr(value.shape, "rank", len(value.shape) if value.shape is not None else None)
    dims = None if rank is None else tuple(None if size is None else int(size) for size in value.shape)
    return Port(name, dtype, dims)


def flatten(answer: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """The tensors in an answer with the keys that lead to them; None is skipped.

    Raises:
        SpecError: something in it is no plain tensor.
    """
    tf = import_tensorflow()
    if answer is None:
        return
    if isinstance(answer, Mapping):
        for key in sorted(answer, key=str):
            yield from flatten(answer[key], f"{name}_{key}" if name else str(key))
    elif isinstance(answer, (tuple, list)):
        keys = getattr(answer, "_fields", None)
        for place, value in enumerate(answer):
            key = keys[place] if keys else (str(place) if name else "")
            yield from flatten(value, "_".join(part for part in (name, key) if part))
    elif isinstance(answer, (tf.RaggedTensor, tf.sparse.SparseTensor)) or not tf.is_tensor(answer):
        what = type(answer).__name__
        raise SpecError(
            f"the model's output{f' {name!r}' if name else ''} is a {what}, not a tensor",
            remedy="return plain tensors, in tuples, lists or dicts",
        )
    else:
        yield name, answer


def output_names(found: Sequence[str]) -> tuple[str, ...]:
    """Names for the tensors of an answer: its keys where all have one of their own."""
    if all(found) and len(set(found)) == len(found):
        return tuple(found)
    return ("output",) if len(found) == 1 else tuple(f"output_{place}" for place in range(len(found)))


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number where one occurs twice."""
    taken: list[str] = []
    for name in names:
        fresh, number = name, 1
        while fresh in taken or (fresh != name and fresh in names):
            fresh, number = f"{name}_{number}", number + 1
        taken.append(fresh)
    return tuple(taken)
