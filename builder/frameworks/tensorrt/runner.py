"""An engine in this process: named tensors, every input and output, any sizes of its profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.errors import BuildError
from builder.frameworks.tensorrt.device_memory import DeviceMemory, open_device
from builder.frameworks.tensorrt.library import describe, logger
from builder.frameworks.tensorrt.proof import engine_proof
from builder.measurement import PrecisionProof
from builder.tensors import BY_NUMPY, Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]
    Bytes = NDArray[np.uint8]


@dataclass(slots=True)
class _Buffer:
    """Memory of one tensor on both sides; it grows and is used again."""

    address: int
    host: Bytes


class EngineSession:
    """A loaded engine. Everything that it holds goes with `close`, and when opening fails half-way."""

    def __init__(self, library: Any, plan: bytes, signature: Signature, compute: str) -> None:  # noqa: ANN401
        """Load the engine on the first GPU.

        Raises:
            MachineError: there is no GPU, or no package for its memory.
            BuildError: TensorRT does not load the engine.
        """
        self._library, self._signature, self._compute = library, signature, compute
        self._buffers: dict[str, _Buffer] = {}
        with ExitStack() as opened:
            self._device: DeviceMemory = open_device()
            opened.callback(self._device.close)
            self._runtime = library.Runtime(logger(library))
            # A version-compatible engine brings the runtime that runs it; this one was built here.
            self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            opened.callback(self._let_go)
            self._context = self._engine and self._engine.create_execution_context()
            if not self._context:
                said = "; ".join(logger(library).errors[-2:]) or "it gave no reason"
                raise BuildError(
                    f"{describe(library)} does not load the engine: {said}",
                    remedy="build it again on this machine: an engine belongs to one GPU and one TensorRT",
                )
            self._allocators = {tensor.name: _allocator(library, self._device) for tensor in signature.outputs}
            self._open = opened.pop_all()

    @property
    def compute(self) -> str:
        return self._compute

    def run(self, inputs: Arrays) -> Arrays:
        """Copy in, run, copy out; in the order of the signature.

        Raises:
            BuildError: no profile holds these sizes, or TensorRT does not run them.
        """
        self._choose_profile(inputs)
        held = {tensor.name: self._enter(tensor.name, inputs[tensor.name]) for tensor in self._signature.inputs}
        missing = self._context.infer_shapes()
        if missing:
            raise BuildError(f"TensorRT still misses the sizes of {', '.join(missing)}")
        for tensor in self._signature.outputs:
            self._prepare(tensor.name, tensor.dtype)
        if not self._context.execute_async_v3(self._device.stream):
            said = "; ".join(logger(self._library).errors[-2:])
            raise BuildError(f"TensorRT does not run the request: {said}")
        answers = {tensor.name: self._fetch(tensor.name, tensor.dtype) for tensor in self._signature.outputs}
        del held
        return answers

    def precision_proof(self) -> PrecisionProof | None:
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return engine_proof(inspector.get_engine_information(self._library.LayerInformationFormat.JSON))

    def close(self) -> None:
        self._open.close()

    def _let_go(self) -> None:
        """TensorRT's objects, in this order, before the device's memory."""
        for buffer in self._buffers.values():
            self._device.free(buffer.address)
            self._device.unpin(buffer.host)
        self._buffers.clear()
        self._allocators = {}
        self._context = self._engine = self._runtime = None

    def _choose_profile(self, inputs: Arrays) -> None:
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        count = self._engine.num_optimization_profiles
        chosen = next((number for number in range(count) if self._takes(number, shapes)), None)
        if chosen is None:
            sizes = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise BuildError(f"no optimisation profile of the engine holds {sizes}")
        if self._context.active_optimization_profile != chosen:
            self._context.set_optimization_profile_async(chosen, self._device.stream)
            self._device.wait()

    def _takes(self, number: int, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        for name, shape in shapes.items():
            smallest, _, largest = self._engine.get_tensor_profile_shape(name, number)
            low, high = tuple(smallest), tuple(largest)
            if low and not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
                return False
        return True

    def _enter(self, name: str, array: Array) -> Array:
        """Say the shape and where the values lie; those that TensorRT reads on the host stay there."""
        import numpy as np

        values = np.ascontiguousarray(array)
        self._context.set_input_shape(name, tuple(array.shape))
        if self._on_host(name):
            self._context.set_tensor_address(name, int(values.ctypes.data))
            return values
        buffer = self._buffer(name, values.nbytes)
        flat = values.reshape(-1).view(np.uint8)
        buffer.host[: flat.size] = flat
        self._device.to_device(buffer.address, buffer.host[: flat.size])
        self._context.set_tensor_address(name, buffer.address)
        return values

    def _prepare(self, name: str, dtype: str) -> None:
        """Memory for an output of known size; one whose size the values decide is allocated when TensorRT knows it."""
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            self._context.set_output_allocator(name, self._allocators[name])
            return
        buffer = self._buffer(name, math.prod(shape) * _numpy_type(dtype).itemsize)
        address = int(buffer.host.ctypes.data) if self._on_host(name) else buffer.address
        self._context.set_tensor_address(name, address)

    def _on_host(self, name: str) -> bool:
        """Shapes are computed on the host."""
        return bool(self._engine.get_tensor_location(name) == self._library.TensorLocation.HOST)

    def _fetch(self, name: str, dtype: str) -> Array:
        allocator = self._allocators[name]
        kind = _numpy_type(dtype)
        self._device.wait()
        if allocator.shape is not None:
            shape, address = allocator.shape, allocator.address
        else:
            shape, address = tuple(self._context.get_tensor_shape(name)), self._buffers[name].address
        size = math.prod(shape) * kind.itemsize
        host = self._buffer(name, size).host
        if size and not self._on_host(name):
            self._device.to_host(host[:size], address)
            self._device.wait()
        answer: Array = host[:size].copy().view(kind).reshape(shape)
        return answer

    def _buffer(self, name: str, size: int) -> _Buffer:
        held = self._buffers.get(name)
        if held is not None and held.host.size >= size:
            return held
        if held is not None:
            del self._buffers[name]
            self._device.free(held.address)
            self._device.unpin(held.host)
        address = self._device.allocate(size)
        try:
            made = _Buffer(address, self._device.pinned(size))
        except BaseException:
            self._device.free(address)
            raise
        self._buffers[name] = made
        return made


def _numpy_type(dtype: str) -> Any:  # noqa: ANN401 - numpy.dtype
    import numpy as np

    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(BY_NUMPY[dtype].numpy)


def _allocator(library: Any, device: DeviceMemory) -> Any:  # noqa: ANN401
    """Gives TensorRT memory for an output whose size it only knows while it runs."""

    class Allocator(library.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IOutputAllocator.__init__(self)
            self.address = 0
            self.size = 0
            self.shape: tuple[int, ...] | None = None

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:  # noqa: ARG002
            return self.reallocate_output(name, memory, size, alignment)

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:  # noqa: ARG002
            if size > self.size or not self.address:
                if self.address:
                    device.free(self.address)
                self.address, self.size = device.allocate(size), size
            return self.address

        def notify_shape(self, name: str, shape: Any) -> None:  # noqa: ARG002, ANN401
            self.shape = tuple(shape)

    return Allocator()
