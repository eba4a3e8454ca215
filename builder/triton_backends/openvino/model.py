"""Triton's `openvino` backend as a Python-based backend: same rules, same defaults, one run for a batch."""

import backend_common as common
import numpy as np
import openvino as ov
import triton_python_backend_utils as pb_utils
from backend_common import Array, Json, Native
from openvino.preprocess import PrePostProcessor

DEFAULT_FILE = "model.xml"
DEFAULT_MAX_BATCH_SIZE = 4
NUMPY_TO_OV = {
    "bool": ov.Type.boolean,
    "uint8": ov.Type.u8,
    "uint16": ov.Type.u16,
    "uint32": ov.Type.u32,
    "uint64": ov.Type.u64,
    "int8": ov.Type.i8,
    "int16": ov.Type.i16,
    "int32": ov.Type.i32,
    "int64": ov.Type.i64,
    "float16": ov.Type.f16,
    "float32": ov.Type.f32,
}
OV_TO_NUMPY = {kind.get_type_name(): name for name, kind in NUMPY_TO_OV.items()} | {
    "f64": "float64",
    "bf16": "bfloat16",
    "string": "string",
}


def read_model(version_folder: str, config: Json) -> tuple[Native, Native]:
    """Read the model file; the library's own message where it cannot."""
    path = common.model_file(version_folder, config, DEFAULT_FILE)
    core = ov.Core()
    if extension := common.parameter(config, "CPU_EXTENSION_PATH"):
        core.add_extension(extension)
    try:
        return core, core.read_model(path)
    except Exception as error:
        raise common.refusal(f"openvino error in reading model : {error}") from None


def ports_of(model: Native) -> Json:
    """The model's own inputs and outputs; an unnamed one is refused as the native backend does."""
    return {"inputs": [_port(port) for port in model.inputs], "outputs": [_port(port) for port in model.outputs]}


def _port(port: Native) -> Json:
    try:
        name = port.get_any_name()
    except RuntimeError as error:
        raise common.refusal(f"ModelState::Create ov::Exception: {error}") from None
    kind = port.get_element_type().get_type_name()
    shape = [size.get_length() if size.is_static else -1 for size in port.get_partial_shape()]
    return {"name": name, "dtype": OV_TO_NUMPY.get(kind, kind), "shape": shape}


def complete(config: Json, model: Native, ports: Json) -> None:
    """The native backend's auto-complete: batching only where every layout has a batch axis."""
    every = [*model.inputs, *model.outputs]
    if all(ov.layout_helpers.has_batch(ov.layout_helpers.get_layout(port)) for port in every):
        if config.get("max_batch_size", 0) == 0:
            config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
        common.complete_dynamic_batching(config)
    common.complete_io(config, "input", ports["inputs"], every_dim_dynamic=True)
    common.complete_io(config, "output", ports["outputs"], every_dim_dynamic=True)


def device_properties(config: Json) -> Json:
    """What the native backend gives the CPU device; nothing that the configuration does not name."""
    properties: Json = {}
    for key in ("INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS"):
        if value := common.parameter(config, key):
            if not value.isdigit():
                raise common.refusal(f"expected the parameter '{key}' to be a non-negative number, got {value.lower()}")
            properties[key] = int(value)
    if value := common.parameter(config, "HINT_BF16").lower():
        if value != "yes":
            raise common.refusal(f"expected the parameter 'HINT_BF16' to be YES, got {value}")
        properties["INFERENCE_PRECISION_HINT"] = "bf16"
    if value := common.parameter(config, "NUM_STREAMS").lower():
        if value not in ("auto", "numa") and not value.isdigit():
            raise common.refusal(
                f"expected the parameter 'NUM_STREAMS' to be either AUTO/NUMA/<int_value>, got {value}"
            )
        properties["NUM_STREAMS"] = value.upper()
    if value := common.parameter(config, "PERFORMANCE_HINT").lower():
        if value not in ("latency", "throughput", "cumulative_throughput"):
            raise common.refusal(
                "expected the parameter 'PERFORMANCE_HINT' to be LATENCY/THROUGHPUT/CUMULATIVE_THROUGHPUT, got " + value
            )
        properties["PERFORMANCE_HINT"] = value.upper()
    return properties


def placement(config: Json) -> Json:
    """Where the threads of several instances run.

    There, they share one network, whose streams lie on cores of their own. Here each instance is a process with a
    network, and each of them would take the same first cores for its threads.
    """
    several = sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) > 1
    return {"ENABLE_CPU_PINNING": False} if several else {}


def shaped(model: Native, config: Json) -> Native:
    """The model with the wire types of the configuration, and with its batch where it batches."""
    processor = PrePostProcessor(model)
    size = config.get("max_batch_size", 0)
    reshaped = common.parameter(config, "RESHAPE_IO_LAYERS").lower() == "yes"
    for tensor in config.get("input", []):
        info = processor.input(tensor["name"]).tensor()
        info.set_element_type(NUMPY_TO_OV[common.TRITON_TO_NUMPY[tensor["data_type"]]])
        if reshaped:
            dims = tensor.get("reshape", tensor).get("shape", tensor["dims"])
            batch = [model.input(tensor["name"]).get_partial_shape()[0]] if size else []
            info.set_shape(ov.PartialShape([*batch, *[int(dim) for dim in dims]]))
        if size:
            info.set_layout(ov.Layout("N..."))
    for tensor in config.get("output", []):
        kind = NUMPY_TO_OV[common.TRITON_TO_NUMPY[tensor["data_type"]]]
        processor.output(tensor["name"]).tensor().set_element_type(kind)
    model = processor.build()
    if size:
        ov.set_batch(model, size)
    return model


class TritonPythonModel:
    """One instance of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Native) -> Native:
        """Complete what the configuration leaves out."""
        config = auto_complete_model_config.as_dict()
        model = read_model(pb_utils.get_model_dir(), config)[1]
        complete(config, model, ports_of(model))
        return auto_complete_model_config

    def initialize(self, args: Json) -> None:
        """Load the model and refuse what the native backend refuses."""
        config = common.read_config(args)
        core, model = read_model(f"{args['model_repository']}/{args['model_version']}", config)
        ports = ports_of(model)
        common.apply_rules("openvino", config, ports)
        try:
            model = shaped(model, config)
            core.set_property("CPU", device_properties(config) | placement(config))
            self.compiled = core.compile_model(model, "CPU")
        except pb_utils.TritonModelException:
            raise
        except Exception as error:
            raise common.refusal(f"openvino error in loading model : {error}") from None
        self.request = self.compiled.create_infer_request()
        self.batch_size = config.get("max_batch_size", 0)
        self.padding = common.parameter(config, "ENABLE_BATCH_PADDING").lower() == "yes"
        self.inputs = {port["name"]: place for place, port in enumerate(ports["inputs"])}
        self.responder = common.Responder(config, ports, self._run, joins_ragged=False)
        places = {port["name"]: place for place, port in enumerate(ports["outputs"])}
        self.outputs = [places[name] for name in self.responder.outputs]

    def _run(self, arrays: dict[str, Array], rows: int, last: bool) -> list[Array]:
        if self.batch_size and rows != self.batch_size:
            if not self.padding:
                msg = (
                    f"expected requests with batch size '{self.batch_size}', got '{rows}'... this error can be avoided "
                    "by setting 'ENABLE_BATCH_PADDING' parameter in model configuration to 'YES' at a performance cost."
                )
                raise ValueError(msg)
            arrays = {name: self._padded(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            tensor = ov.Tensor(np.ascontiguousarray(array), shared_memory=True)
            self.request.set_input_tensor(self.inputs[name], tensor)
        found = list(self.request.infer(share_outputs=True).values())
        results = [found[place] for place in self.outputs]
        if self.batch_size:
            results = [result[:rows] for result in results]
        return results if last else [result.copy() for result in results]

    def _padded(self, array: Array) -> Array:
        missing = self.batch_size - len(array)
        return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])

    def execute(self, requests: list[Native]) -> list[Native]:
        """Answer the requests the batcher put together."""
        responses: list[Native] = self.responder.execute(requests)
        return responses

    def finalize(self) -> None:
        """Let the model go before the interpreter ends."""
        self.request = self.compiled = None
