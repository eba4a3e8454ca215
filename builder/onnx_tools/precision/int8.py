"""int8: static, with ranges measured beforehand and Q/DQ pairs in the graph, or dynamic, with ranges of every run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from builder.errors import BuildError
from builder.measurement import QuantizationReport
from builder.onnx_tools.exported import quiet
from builder.onnx_tools.optimise import TRANSFORMS
from builder.onnx_tools.optimise.graph import copy_of
from builder.onnx_tools.precision import PrecisionJob
from builder.onnx_tools.precision.attention import part_attention
from builder.onnx_tools.precision.bias_correction import read_by_layers
from builder.onnx_tools.precision.blocks import eligible, in_blocks
from builder.onnx_tools.precision.calibration import GIVE_REAL, Calibration, CalibrationTable, read_table
from builder.onnx_tools.precision.naming import name_nodes
from builder.onnx_tools.precision.qdq import FORMS, Chosen, measured, quantize
from builder.onnx_tools.precision.quantizable import Quantizable, find_quantizable, part_weights
from builder.onnx_tools.reading import ModelProto, graphs, opset_of, short
from builder.onnx_tools.values import value_types
from builder.onnx_tools.writing import write_onnx
from builder.work import Quantization

FOLDS: Final = ("clean", "fuse_pad", "fuse_batch_norm", "fuse_bias")
"""Transforms without which a pair would stand between a convolution and its normalisation."""
DYNAMIC_DIALECT: Final = "onnxruntime"
"""Others run DynamicQuantizeLinear and MatMulInteger one by one, more slowly than fp32, or not at all."""
PER_CHANNEL_OPSET: Final = 13
ELEMENTS: Final = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(double)": 11, "tensor(bfloat16)": 16}
SHOWN: Final = 4
"""Products that a message says why int8 is not for."""
INFERRED: Final = ("onnx.infer", "onnxruntime.quant")
"""Tells the quantiser that types are known; without it, it writes the model to disk and infers them again."""


def convert(model_path: Path, out_path: Path, job: PrecisionJob, keep: frozenset[str]) -> QuantizationReport:
    """Write the graph with int8 products; the nodes named in `keep` stay fp32, and read what is not quantised.

    In dynamic int8 those of them that can get scales by block instead, which are as good as fp32 in nearly all.

    Raises:
        BuildError: there is nothing to quantise, no rows to calibrate on, or the library refuses the graph.
    """
    if job.quantization is None:
        msg = "an int8 job without its settings"
        raise ValueError(msg)
    planned = _planned(model_path, job, job.quantization)
    model, found, mode = copy_of(planned.model), planned.found, planned.mode
    taken = tuple(name for name in _taken(mode, found) if name not in keep)
    blocks = _in_blocks(planned, keep, job.opset)
    if not set(taken) - set(found.joins) and not blocks:
        raise _nothing(mode, found)
    if mode == "dynamic":
        # The quantiser makes a MatMul of every Gemm, and transposes its weights in place.
        part_weights(model, frozenset((*taken, *blocks)) | _gemms(model), alone=True)
    else:
        part_weights(model, frozenset(taken), alone=False)
    _declare(model, planned.types)
    if mode == "dynamic":
        model, count = _dynamic(model, taken, per_channel=job.quantization.per_channel) if taken else (model, 0)
        model = in_blocks(model, blocks)
        report = QuantizationReport(mode, None, 0, count + len(blocks), blocks)
    else:
        table = _table(model, model_path, out_path.parent, job, _taken(mode, found))
        form, per_channel = FORMS[job.dialect], job.quantization.per_channel
        model, count = quantize(model, Chosen(taken, keep), table, form, per_channel=per_channel)
        report = QuantizationReport(mode, table.calibrator, table.rows, count)
    write_onnx(_finished(model, job), out_path)
    return report


def _in_blocks(planned: _Planned, keep: frozenset[str], opset: int) -> tuple[str, ...]:
    """The products of `keep` that need not stay in fp32."""
    if planned.mode != "dynamic":
        return ()
    may = {node.name for node in planned.model.graph.node if eligible(node, opset)}
    return tuple(name for name in planned.found.matrices if name in keep and name in may)


def candidates(model_path: Path, job: PrecisionJob) -> frozenset[str]:
    """Names of the nodes that `convert` would quantise: keeping another one in fp32 changes nothing.

    Raises:
        BuildError: as `convert`.
    """
    planned = _planned(model_path, job, job.quantization) if job.quantization else None
    return frozenset(_taken(planned.mode, planned.found)) if planned else frozenset()


@dataclass(frozen=True, slots=True)
class _Planned:
    """The model as it will be quantised, with the types of its tensors, and what is for int8 in it."""

    model: ModelProto
    types: dict[str, str]
    found: Quantizable
    mode: str


def is_dynamic(model_path: Path, job: PrecisionJob) -> bool:
    """Ranges come from every run, all its rows together."""
    return job.quantization is not None and _planned(model_path, job, job.quantization).mode == "dynamic"


def _planned(model_path: Path, job: PrecisionJob, settings: Quantization) -> _Planned:
    return _plan(model_path, model_path.stat().st_mtime_ns, settings.mode, job.dialect, job.opset)


@lru_cache(maxsize=1)
def _plan(model_path: Path, stamp: int, mode: str, dialect: str, opset: int) -> _Planned:  # noqa: ARG001
    """Made once for all candidates of a search, of which it would take most of the time."""
    model = part_attention(_folded(_raised(_loaded(model_path), opset)))
    types = value_types(model, model_path.parent)
    found = find_quantizable(model, types)
    return _Planned(model, types, found, _mode(mode, dialect, found))


def _loaded(path: Path) -> ModelProto:
    """With weights, names for all nodes, and no functions of its own."""
    import onnx

    model = onnx.load(str(path))
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    name_nodes(model)
    return model


def _raised(model: ModelProto, opset: int) -> ModelProto:
    """In an opset that has scales per channel.

    Raises:
        BuildError: onnx cannot convert the model to it.
    """
    from onnx import version_converter

    if opset_of(model) >= PER_CHANNEL_OPSET:
        return model
    try:
        return version_converter.convert_version(model, min(PER_CHANNEL_OPSET, opset))
    except Exception as error:
        raise BuildError(
            f"int8 needs ONNX opset {PER_CHANNEL_OPSET}; the model has {opset_of(model)} and cannot be converted: "
            f"{short(error)}",
            remedy="export the model again with a newer opset, or remove its int8 targets",
        ) from error


def _folded(model: ModelProto) -> ModelProto:
    for name in FOLDS:
        transform = TRANSFORMS[name]
        if transform.requires(model):
            after = transform.apply(model)
            model = model if transform.ensures(model, after) else after
    name_nodes(model)
    return model


def _mode(asked: str, dialect: str, found: Quantizable) -> str:
    """Static for convolutions; dynamic for what is mostly matrix products, where the dialect has it.

    Most of the products and most of the weights: one large convolution between small matrices is worth more, and the
    large matrix at the end of an old CNN less, than either tells alone.

    Raises:
        BuildError: dynamic was asked for, and the target does not take it.
    """
    if asked == "dynamic" and dialect != DYNAMIC_DIALECT:
        raise BuildError(
            "dynamic int8 is for onnxruntime: this target takes static int8 only",
            remedy=f"say quantization: {{mode: auto}}; {GIVE_REAL}",
        )
    if asked != "auto":
        return asked
    in_convolutions, in_matrices = found.weights
    matrices = len(found.matrices) + len(found.fused) > found.convolutions and in_matrices > in_convolutions
    return "dynamic" if dialect == DYNAMIC_DIALECT and matrices else "static"


def _taken(mode: str, found: Quantizable) -> tuple[str, ...]:
    """Names of nodes, in the graph's order within each kind."""
    if mode == "static":
        return (*found.products, *found.joins)
    return (*found.matrices, *found.fused)


def _nothing(mode: str, found: Quantizable) -> BuildError:
    if set(_taken(mode, found)) - set(found.joins):
        what = "all nodes that int8 is for were to stay in fp32"
    else:
        kinds = "no MatMul or Gemm" if mode == "dynamic" else "no Conv, MatMul or Gemm"
        what = f"it has {kinds} that could be quantised"
        said = [f"{node} {reason}" for node, reason in found.refused[:SHOWN]]
        what += f": {', '.join(said)}{', …' if len(found.refused) > SHOWN else ''}" if said else ""
    return BuildError(
        f"nothing of the model can be made int8 ({mode}): {what}",
        remedy="remove the int8 targets of this model",
    )


def _declare(model: ModelProto, types: Mapping[str, str]) -> None:
    """Write the types that the quantiser asks for into the model."""
    del model.graph.value_info[:]
    ports = {port.name for port in (*model.graph.input, *model.graph.output)}
    stored = {tensor.name for tensor in model.graph.initializer}
    for name, word in types.items():
        if word in ELEMENTS and name not in ports and name not in stored:
            value = model.graph.value_info.add()
            value.name = name
            value.type.tensor_type.elem_type = ELEMENTS[word]
    entry = model.metadata_props.add()
    entry.key, entry.value = INFERRED


def _table(model: ModelProto, origin: Path, out: Path, job: PrecisionJob, names: Sequence[str]) -> CalibrationTable:
    """Ranges for everything that could be quantised, so that every choice of nodes finds the same table.

    Raises:
        BuildError: there are no rows, or they cannot calibrate.
    """
    if job.calibration is None or job.quantization is None:
        raise BuildError(
            "static int8 needs rows of samples to calibrate on, and the export kept none", remedy=GIVE_REAL
        )
    wanted = frozenset(names)
    calibration = Calibration(
        model,
        origin,
        job.calibration,
        job.signature,
        job.quantization.calibrator,
        measured(model, wanted),
        read_by_layers(model, wanted),
    )
    return read_table(calibration, job.shared, out)


def _dynamic(model: ModelProto, names: Sequence[str], *, per_channel: bool) -> tuple[ModelProto, int]:
    """Integer products whose inputs are quantised as they come; returns the model and their number."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    products = _as_products(model, frozenset(names))
    with quiet():
        quantizer = ONNXQuantizer(
            model,
            per_channel=per_channel,
            reduce_range=False,
            mode=QuantizationMode.IntegerOps,
            static=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=products,
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul", "Attention"],
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    made = quantizer.model.model
    return made, sum(node.op_type in ("MatMulInteger", "QAttention") for node in made.graph.node)


def _gemms(model: ModelProto) -> frozenset[str]:
    return frozenset(node.name for node in model.graph.node if node.op_type == "Gemm")


def _as_products(model: ModelProto, names: frozenset[str]) -> list[str]:
    """The names under which the quantiser, which makes a MatMul of every Gemm, knows the nodes."""
    return [
        f"{node.name}_MatMul" if node.op_type == "Gemm" else node.name
        for node in model.graph.node
        if node.name in names
    ]


def _finished(model: ModelProto, job: PrecisionJob) -> ModelProto:
    """Without the quantiser's notes, and within the limits of the release."""
    del model.graph.value_info[:]
    kept = [entry for entry in model.metadata_props if (entry.key, entry.value) != INFERRED]
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in kept]
    del model.metadata_props[:]
    model.metadata_props.extend(copies)
    used = set(_domains(model))
    imports = [(entry.domain, entry.version) for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    for domain, version in imports:
        model.opset_import.add(domain=domain, version=version)
    model.ir_version = min(model.ir_version, job.ir_version)
    return model


def _domains(model: ModelProto) -> Iterator[str]:
    yield ""
    for graph in graphs(model):
        for node in graph.node:
            yield node.domain
            if not node.domain:
                yield "ai.onnx"
