"""skl2onnx's graph with the ports of the signature: types and shapes as the estimator answers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any, Final

from builder.errors import BuildError
from builder.onnx_tools.conform import remove_dead_nodes
from builder.onnx_tools.nodes import replace_nodes
from builder.onnx_tools.reading import ModelProto
from builder.onnx_tools.renaming import rename_ports
from builder.onnx_tools.running import open_plain, run_plain
from builder.samples import Request
from builder.tensors import BY_NUMPY, Signature, Tensor

ML_OPSET: Final = 3
LOCALE: Final = "C.UTF-8"
GRAPH_NAME: Final = "main_graph"
ML_OPSET_SINCE: Final = 16
"""The opset of ONNX that came with version 3 of ai.onnx.ml."""


def convert(  # noqa: PLR0913 - the estimator, the promise, how, where to
    estimator: Any,  # noqa: ANN401
    signature: Signature,
    example: Request,
    opset: int,
    path: Path,
    *,
    double: bool = False,
) -> None:
    """Write `path`; `double` computes in float64 behind float32 inputs and outputs.

    Raises:
        BuildError: skl2onnx names other outputs.
    """
    from skl2onnx import convert_sklearn
    from sklearn.base import is_classifier

    estimator = _convertible(estimator)
    question: dict[str, Any] = {
        "initial_types": [(tensor.name, _type(tensor, double=double)) for tensor in signature.inputs],
        "target_opset": {"": opset, "ai.onnx.ml": ML_OPSET if opset >= ML_OPSET_SINCE else ML_OPSET - 1},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            options = {"zipmap": False} if is_classifier(estimator) else None
            model = convert_sklearn(estimator, options=options, **question)
        except NameError:
            # Some classifiers have no ZipMap to leave out, and no such option.
            model = convert_sklearn(estimator, **question)
    # skl2onnx draws a name by chance.
    model.graph.name = GRAPH_NAME
    _settle_opsets(model)
    _settle_locales(model)
    if double:
        _narrow_inputs(model)
    _fit_outputs(model, signature, example)
    remove_dead_nodes(model)
    path.write_bytes(model.SerializeToString())


def _convertible(estimator: Any) -> Any:  # noqa: ANN401
    """skl2onnx refuses a VotingClassifier for a setting that decides its `transform` alone, which nobody asks."""
    if not getattr(_last_step(estimator), "flatten_transform", False):
        return estimator
    made = copy.deepcopy(estimator)
    _last_step(made).flatten_transform = False
    return made


def _last_step(estimator: Any) -> Any:  # noqa: ANN401
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


def _type(tensor: Tensor, *, double: bool) -> Any:  # noqa: ANN401 - one of skl2onnx's types
    from skl2onnx.common import data_types

    word = "float64" if double and tensor.dtype == "float32" else tensor.dtype
    kinds = {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "int32": data_types.Int32TensorType,
        "bool": data_types.BooleanTensorType,
        "string": data_types.StringTensorType,
    }
    return kinds[word]([None, *tensor.shape[1:]])


def _settle_opsets(model: ModelProto) -> None:
    """Each domain once, and the default one in any case: skl2onnx lists some twice."""
    from onnx import helper

    versions: dict[str, int] = {}
    for entry in model.opset_import:
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    # Reshape and Cast are added below; 13 is the oldest opset that skl2onnx's graphs and these agree on.
    versions[""] = max(versions.get("", 0), 13)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))


def _settle_locales(model: ModelProto) -> None:
    """The one locale with all of Unicode that every Linux has; en_US, the default, is in no Triton container."""
    from onnx import helper

    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            copies = [type(attribute).FromString(attribute.SerializeToString()) for attribute in kept]
            del node.attribute[:]
            node.attribute.extend([*copies, helper.make_attribute("locale", LOCALE)])


def _narrow_inputs(model: ModelProto) -> None:
    """float64 inputs become float32 ones with a Cast behind them."""
    from onnx import helper

    wide = [value.name for value in model.graph.input if value.type.tensor_type.elem_type == BY_NUMPY["float64"].onnx]
    rename_ports(model, {name: f"{name}__float64" for name in wide})
    casts = [helper.make_node("Cast", [name], [f"{name}__float64"], to=BY_NUMPY["float64"].onnx) for name in wide]
    for value in model.graph.input:
        if value.name.removesuffix("__float64") in wide:
            value.name = value.name.removesuffix("__float64")
            value.type.tensor_type.elem_type = BY_NUMPY["float32"].onnx
    replace_nodes(model.graph, [*casts, *model.graph.node])


def _fit_outputs(model: ModelProto, signature: Signature, example: Request) -> None:
    """Only the wanted outputs, each with the type and the rank of the estimator's own answer."""
    from onnx import helper, numpy_helper

    if len(model.graph.output) == len(signature.outputs) == 1:
        rename_ports(model, {model.graph.output[0].name: signature.outputs[0].name})
    found = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    missing = [tensor.name for tensor in signature.outputs if tensor.name not in found]
    if missing:
        raise BuildError(f"skl2onnx gives {', '.join(found)}, not {', '.join(missing)}")
    shapes = _shapes(model, example)
    rename_ports(model, {name: f"{name}__raw" for name in found})
    nodes = list(model.graph.node)
    del model.graph.output[:]
    for tensor in signature.outputs:
        name, rest = f"{tensor.name}__raw", example.outputs[tensor.name].shape[1:]
        if shapes[tensor.name][1:] != rest:
            import numpy as np

            shape = numpy_helper.from_array(np.asarray([-1, *rest], np.int64), f"{tensor.name}__shape")
            model.graph.initializer.append(shape)
            nodes.append(helper.make_node("Reshape", [name, shape.name], [f"{name}_shaped"]))
            name = f"{name}_shaped"
        wanted = BY_NUMPY[tensor.dtype].onnx
        same = found[tensor.name] == wanted
        nodes.append(
            helper.make_node("Identity", [name], [tensor.name])
            if same
            else helper.make_node("Cast", [name], [tensor.name], to=wanted)
        )
        model.graph.output.append(helper.make_tensor_value_info(tensor.name, wanted, tensor.shape))
    replace_nodes(model.graph, nodes)


def _shapes(model: ModelProto, example: Request) -> dict[str, tuple[int, ...]]:
    """What comes out for one request: the declared shapes are not always right."""
    names = [value.name for value in model.graph.output]
    answers = run_plain(open_plain(model.SerializeToString()), names, example.inputs)
    return {name: answer.shape for name, answer in zip(names, answers, strict=True)}
