"""Triton's `pytorch` backend, for TorchScript, as a Python-based backend: same rules and defaults, one run a batch."""

from pathlib import Path

import backend_common as common
import native_rules
import numpy as np
import torch
from backend_common import Array, Json, Native

DEFAULT_FILE = "model.pt"
TORCH_TO_TRITON = {
    torch.bool: "TYPE_BOOL",
    torch.uint8: "TYPE_UINT8",
    torch.int8: "TYPE_INT8",
    torch.int16: "TYPE_INT16",
    torch.int32: "TYPE_INT32",
    torch.int64: "TYPE_INT64",
    torch.float16: "TYPE_FP16",
    torch.float32: "TYPE_FP32",
    torch.float64: "TYPE_FP64",
}


def open_script(version_folder: str, config: Json) -> Native:
    """Load the file as it was saved; PyTorch's message in the native backend's form where it refuses."""
    name = config["name"]
    path = Path(version_folder) / (config.get("default_model_filename") or DEFAULT_FILE)
    if not path.exists():
        raise common.refusal(f"unable to find '{path}' for model instance '{name}'")
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except Exception as error:
        raise common.refusal(f"failed to load model '{name}': {error}") from None


def arguments_of(script: Native) -> list[Json]:
    """Name and type of each argument of `forward`."""
    declared = script.forward.schema.arguments[1:]
    return [{"name": argument.name, "type": argument.type.annotation_str} for argument in declared]


def use_threads(config: Json) -> None:
    """The number of threads, where the configuration says one."""
    if (count := common.whole_number(config, "INTRA_OP_THREAD_COUNT", -1)) > 0:
        torch.set_num_threads(count)
    if (count := common.whole_number(config, "INTER_OP_THREAD_COUNT", -1)) > 0:
        torch.set_num_interop_threads(count)


def to_torch(array: Array) -> Native:
    """A tensor over the same memory where that is allowed; strings become a list."""
    if array.dtype == object:
        return array.ravel().tolist()
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())


class TritonPythonModel:
    """One instance of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Native) -> Native:
        """Complete nothing: TorchScript does not tell enough."""
        return auto_complete_model_config

    def initialize(self, args: Json) -> None:
        """Load the model and refuse what the native backend refuses."""
        # The core writes this file's own name there, for which the rules would take the model to be Python code.
        config = common.read_config(args) | {"runtime": ""}
        self.script = open_script(f"{args['model_repository']}/{args['model_version']}", config)
        arguments = arguments_of(self.script)
        common.apply_rules("pytorch", config, {"arguments": arguments})
        use_threads(config)
        self.inference_mode = common.flag(config, "INFERENCE_MODE", default=True)
        self.optimized = not common.flag(config, "DISABLE_OPTIMIZED_EXECUTION", default=False)
        self.responder = common.Responder(config, {"inputs": [], "outputs": []}, self._run)
        self.takes_dict = len(arguments) == 1 and arguments[0]["type"].startswith("Dict")
        self.inputs = native_rules.pytorch_named_places(config, "input", [item["name"] for item in arguments])
        self.outputs = native_rules.pytorch_named_places(config, "output", None)
        self.types = {tensor["name"]: tensor["data_type"] for tensor in config["output"]}

    def _run(self, arrays: dict[str, Array], rows: int, last: bool) -> list[Array]:  # noqa: ARG002 - the responder's call
        values = {name: to_torch(array) for name, array in arrays.items()}
        inputs = [values] if self.takes_dict else [values[name] for name in sorted(values, key=self.inputs.__getitem__)]
        try:
            with (
                torch.inference_mode(self.inference_mode),
                torch.no_grad(),
                torch.jit.optimized_execution(self.optimized),
            ):
                answer = self.script(*inputs)
        except Exception as error:
            msg = f"PyTorch execute failure: {error}"
            raise RuntimeError(msg) from None
        results = answer if isinstance(answer, tuple) else (answer,)
        return [self._result(name, results) for name in self.responder.results]

    def _result(self, name: str, results: Native) -> Array:
        place = self.outputs[name]
        if place >= len(results):
            msg = (
                f"The output {name} in the model configuration refers to an output index which doesn't exist. This "
                f"model has {len(results)} outputs"
            )
            raise ValueError(msg)
        value = results[place]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return np.array(value, dtype=object)
        if not isinstance(value, torch.Tensor):
            msg = f"output '{name}' must be of type Tensor or List[str]."
            raise TypeError(msg)
        given, wanted = TORCH_TO_TRITON.get(value.dtype, "TYPE_<invalid>"), self.types.get(name)
        if wanted is not None and given != wanted:
            msg = f"configuration expects datatype {wanted} for output '{name}', model provides {given}"
            raise TypeError(msg)
        if not value.ndim:
            msg = f"output '{name}' is a scalar which is not supported."
            raise ValueError(msg)
        result: Array = value.contiguous().numpy()
        return result

    def execute(self, requests: list[Native]) -> list[Native]:
        """Answer the requests the batcher put together."""
        responses: list[Native] = self.responder.execute(requests)
        return responses

    def finalize(self) -> None:
        """Let the module go before the interpreter ends."""
        self.script = None
