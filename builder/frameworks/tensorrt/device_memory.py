"""Memory and streams of a GPU behind a few calls: pycuda where it is installed, else cuda-python.

pycuda is the project's choice, but it has no wheels and needs a compiler and the CUDA toolkit; cuda-python installs
anywhere.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol

from builder.errors import BuildError, MachineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

PACKAGES: Final = ("pycuda", "cuda.bindings")
REMEDY: Final = "pip install 'build-repo[tensorrt]', which brings cuda-python"


class DeviceMemory(Protocol):
    """The first GPU that this process sees. What is not freed one by one goes with `close`."""

    stream: int
    """The handle of the one stream."""

    def allocate(self, size: int) -> int:
        """Device memory; its address."""

    def free(self, address: int) -> None: ...

    def pinned(self, size: int) -> Bytes:
        """Page-locked host memory, which copies to and from the device without a detour."""

    def unpin(self, array: Bytes) -> None: ...

    def to_device(self, address: int, array: Bytes) -> None:
        """Enqueue a copy on the stream."""

    def to_host(self, array: Bytes, address: int) -> None:
        """Enqueue a copy on the stream."""

    def wait(self) -> None:
        """Until the stream is empty."""

    def close(self) -> None: ...


def available() -> str | None:
    """The package that will be used; None where there is none. Nothing is imported."""
    return next((name for name in PACKAGES if installed(name)), None)


def installed(name: str) -> bool:
    """Whether there is such a package; it is not imported."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def open_device() -> DeviceMemory:
    """The GPU's memory.

    Raises:
        MachineError: no package for it is installed, or there is no driver or GPU.
    """
    package = available()
    if package is None:
        raise MachineError("neither pycuda nor cuda-python is installed", remedy=REMEDY)
    try:
        return Pycuda() if package == "pycuda" else CudaPython()
    except BuildError as error:
        raise MachineError(f"the GPU cannot be used: {error.message}", remedy="check nvidia-smi") from error


class CudaPython:
    """`cuda.bindings.runtime`: every call returns an error code and its results."""

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._runtime = runtime
        self._held: set[int] = set()
        self._pinned: dict[int, int] = {}
        self._call("cudaSetDevice", 0)
        self._stream = self._call("cudaStreamCreate")
        self.stream = int(self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401
        """The one result, if any.

        Raises:
            BuildError: CUDA says no.
        """
        try:
            code, *results = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:  # no driver library on this machine
            raise BuildError(f"{name}: {error}") from error
        if code != self._runtime.cudaError_t.cudaSuccess:
            _, text = self._runtime.cudaGetErrorString(code)
            raise BuildError(f"{name}: {text.decode() if isinstance(text, bytes) else text}")
        return results[0] if results else None

    def allocate(self, size: int) -> int:
        address = int(self._call("cudaMalloc", max(size, 1)))
        self._held.add(address)
        return address

    def free(self, address: int) -> None:
        self._held.discard(address)
        self._call("cudaFree", address)

    def pinned(self, size: int) -> Bytes:
        import numpy as np

        address = int(self._call("cudaMallocHost", max(size, 1)))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * max(size, 1)).from_address(address))
        self._pinned[int(array.ctypes.data)] = address
        return array

    def unpin(self, array: Bytes) -> None:
        self._call("cudaFreeHost", self._pinned.pop(int(array.ctypes.data)))

    def to_device(self, address: int, array: Bytes) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, int(array.ctypes.data), array.nbytes, kind, self._stream)

    def to_host(self, array: Bytes, address: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", int(array.ctypes.data), address, array.nbytes, kind, self._stream)

    def wait(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        for address in tuple(self._held):
            self.free(address)
        for address in self._pinned.values():
            self._call("cudaFreeHost", address)
        self._pinned.clear()
        self._call("cudaStreamDestroy", self._stream)


class Pycuda:
    """`pycuda.driver` on the device's primary context, which TensorRT uses too."""

    def __init__(self) -> None:
        try:
            from pycuda import driver
        except ImportError as error:  # no driver library on this machine
            raise BuildError(str(error)) from error
        self._driver = driver
        self._held: dict[int, Any] = {}
        self._pinned: dict[int, Any] = {}
        try:
            driver.init()
            self._context = driver.Device(0).retain_primary_context()
            self._context.push()
        except driver.Error as error:
            raise BuildError(str(error)) from error
        self._stream = driver.Stream()
        self.stream = int(self._stream.handle)

    def _call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401
        """A function of the driver.

        Raises:
            BuildError: CUDA says no.
        """
        try:
            return getattr(self._driver, name)(*arguments)
        except self._driver.Error as error:
            raise BuildError(str(error)) from error

    def allocate(self, size: int) -> int:
        held = self._call("mem_alloc", max(size, 1))
        self._held[int(held)] = held
        return int(held)

    def free(self, address: int) -> None:
        self._held.pop(address).free()

    def pinned(self, size: int) -> Bytes:
        import numpy as np

        array: Bytes = self._call("pagelocked_empty", max(size, 1), np.uint8)
        self._pinned[int(array.ctypes.data)] = array
        return array

    def unpin(self, array: Bytes) -> None:
        self._pinned.pop(int(array.ctypes.data)).base.free()

    def to_device(self, address: int, array: Bytes) -> None:
        self._call("memcpy_htod_async", address, array, self._stream)

    def to_host(self, array: Bytes, address: int) -> None:
        self._call("memcpy_dtoh_async", array, address, self._stream)

    def wait(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        for address in tuple(self._held):
            self.free(address)
        for array in tuple(self._pinned.values()):
            self.unpin(array)
        self._context.pop()
        self._context.detach()
