"""One form for a graph, whatever the order and the names its exporter chose."""

import numpy as np
import onnx
import pytest
from export_models import F32, I64, model_of, plain_run, save, value
from onnx import TensorProto, helper

from builder.onnx_tools.canonical import canonicalise

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def counted(*, copied, name="body"):
    """A loop whose running sum is its state and is put out at each step: `copied` says which of the two is the copy."""
    state, step = ("copy", "sum") if copied == "state" else ("sum", "copy")
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "i"], [f"{name}_row"], axis=0),
            helper.make_node("Add", ["before", f"{name}_row"], ["sum"]),
            helper.make_node("Identity", ["sum"], ["copy"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        name,
        [value("i", I64, ()), value("go", TensorProto.BOOL, ()), value("before", F32, (4,))],
        [value("on", TensorProto.BOOL, ()), value(state, F32, (4,)), value(step, F32, (4,))],
    )
    loop = helper.make_node("Loop", ["count", "yes", "zero"], ["last", "all"], body=body)
    weights = {"count": np.int64(3), "yes": np.bool_(True), "zero": np.zeros(4, np.float32)}
    outputs = [value("last", F32, (4,)), value("all", F32, (3, 4))]
    return model_of([loop], [value("x", F32, (3, 4))], outputs, weights)


def test_either_copy_of_a_value_becomes_the_same_graph(tmp_path):
    made = [counted(copied="state"), counted(copied="step", name="other")]
    for place, model in enumerate(made):
        before = plain_run(save(model, tmp_path / f"before{place}.onnx"), {"x": X})
        canonicalise(model)
        onnx.checker.check_model(model, full_check=True)
        after = plain_run(save(model, tmp_path / f"after{place}.onnx"), {"x": X})
        assert all(np.array_equal(left, right) for left, right in zip(before, after, strict=True))
        assert np.array_equal(after[1], np.cumsum(X, axis=0))
    first, second = (model.SerializeToString(deterministic=True) for model in made)
    assert first == second


@pytest.mark.parametrize("turned", [False, True])
def test_order_and_names_of_nodes_do_not_matter(turned):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])]
    nodes = list(reversed(nodes)) if turned else nodes
    model = model_of([*nodes, helper.make_node("Add", ["a", "b"], ["y"])], [value("x")], [value("y")])
    canonicalise(model)
    assert [node.name for node in model.graph.node] == ["Relu_0", "Neg_2", "Add_4"]
