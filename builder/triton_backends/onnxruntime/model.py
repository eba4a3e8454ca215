"""Triton's `onnxruntime` backend as a Python-based backend: same rules, same defaults, one run for a batch."""

import re

import backend_common as common
import onnxruntime
import triton_python_backend_utils as pb_utils
from backend_common import Array, Json, Native

DEFAULT_FILE = "model.onnx"
DEFAULT_MAX_BATCH_SIZE = 4
ORT_TO_NUMPY = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bfloat16)": "bfloat16",
    "tensor(string)": "string",
}
NO_TENSORS = {"seq": "sequence", "map": "map", "optional": "optional", "sparse_tensor": "sparse"}
GRAPH_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def session_options(config: Json) -> Native:
    """The options that the native backend sets from the configuration."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = GRAPH_LEVELS.get(level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    mode = common.whole_number(config, "execution_mode")
    if mode not in (0, 1):
        raise common.refusal(
            f"Invalid configuration value provided. Expected values for  execution_mode are 0 or 1 but got {mode} ."
        )
    if mode == 1:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.intra_op_num_threads = max(common.whole_number(config, "intra_op_thread_count"), 0)
    options.inter_op_num_threads = max(common.whole_number(config, "inter_op_thread_count"), 0)
    for key, attribute in (("enable_mem_arena", "enable_cpu_mem_arena"), ("enable_mem_pattern", "enable_mem_pattern")):
        if value := common.parameter(config, key):
            setattr(options, attribute, value.lower() in ("1", "true", "yes", "on"))
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    return options


def open_session(version_folder: str, config: Json) -> Native:
    """Load the model; the library's message in the native backend's form where it refuses."""
    path = common.model_file(version_folder, config, DEFAULT_FILE)
    try:
        return onnxruntime.InferenceSession(path, session_options(config), providers=["CPUExecutionProvider"])
    except pb_utils.TritonModelException:
        raise
    except Exception as error:
        found = re.match(r"\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)", str(error), re.DOTALL)
        raise common.refusal(f"onnx runtime error {found[1]}: {found[2]}" if found else str(error)) from None


def ports_of(session: Native) -> Json:
    """The model's own inputs and outputs."""
    return {
        "inputs": [_port(node) for node in session.get_inputs()],
        "outputs": [_port(node) for node in session.get_outputs()],
        "initializers": [node.name for node in session.get_overridable_initializers()],
    }


def _port(node: Native) -> Json:
    kind = ORT_TO_NUMPY.get(node.type) or NO_TENSORS.get(node.type.partition("(")[0], node.type)
    shape = [size if isinstance(size, int) and size >= 0 else -1 for size in node.shape or ()]
    return {"name": node.name, "dtype": kind, "shape": shape}


def complete(config: Json, name: str, ports: Json) -> None:
    """The native backend's auto-complete: batching only where every first dimension is dynamic."""
    every = ports["inputs"] + ports["outputs"]
    if all(port["shape"] and port["shape"][0] == -1 for port in every):
        if config.get("max_batch_size", 0) == 0:
            config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
        common.complete_dynamic_batching(config)
    elif config.get("max_batch_size", 0) != 0:
        raise common.refusal(
            f"autofill failed for model '{name}': model does not support batching while non-zero max_batch_size "
            "is specified"
        )
    common.complete_io(config, "input", ports["inputs"], every_dim_dynamic=False)
    common.complete_io(config, "output", ports["outputs"], every_dim_dynamic=False)


class TritonPythonModel:
    """One instance of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Native) -> Native:
        """Complete what the configuration leaves out; one that has inputs and outputs stays as it is."""
        config = auto_complete_model_config.as_dict()
        if not (config.get("input") and config.get("output")):
            complete(config, config["name"], ports_of(open_session(pb_utils.get_model_dir(), config)))
        return auto_complete_model_config

    def initialize(self, args: Json) -> None:
        """Load the model and refuse what the native backend refuses."""
        config = common.read_config(args)
        folder = f"{args['model_repository']}/{args['model_version']}"
        self.session = open_session(folder, config)
        ports = ports_of(self.session)
        common.apply_rules("onnxruntime", config, ports)
        self.responder = common.Responder(config, ports, self._run)
        self.names = self.responder.results

    def _run(self, arrays: dict[str, Array], rows: int, last: bool) -> list[Array]:  # noqa: ARG002 - the responder's call
        results: list[Array] = self.session.run(self.names, arrays)
        return results

    def execute(self, requests: list[Native]) -> list[Native]:
        """Answer the requests the batcher put together."""
        responses: list[Native] = self.responder.execute(requests)
        return responses

    def finalize(self) -> None:
        """Let the session go before the interpreter ends."""
        self.session = None
