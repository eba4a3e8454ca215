"""The pytorch backend's row: what it takes as it is, what it refuses, how it runs a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from script_models import Doubling, Linear, Minus, save_script, torch
from small_graphs import conversion, random_inputs, signature

from builder.backends import Conversion, Settings, backend_module
from builder.errors import BuildError
from builder.measurement import TORCHSCRIPT_FILE
from builder.tensors import Signature

PYTORCH = backend_module("pytorch")
RELEASE = "26.07"


def job(folder: Path, ports: Signature) -> Conversion:
    from dataclasses import replace

    return replace(conversion(folder, ports), model=folder / TORCHSCRIPT_FILE)


def test_a_file_is_linked_and_runs_as_the_native_backend_runs_it(tmp_path: Path) -> None:
    ports = signature(
        ["a:float32:batch,3", "b:float32:batch,3"], ["difference:float32:batch,3", "larger:int64:batch,3"]
    )
    path = save_script(Minus(), tmp_path / "export" / TORCHSCRIPT_FILE)
    (tmp_path / "out").mkdir()
    assert PYTORCH.convert(job(tmp_path / "export", ports), tmp_path / "out") == ports
    assert (tmp_path / "out" / "model.pt").read_bytes() == path.read_bytes()
    session = PYTORCH.open_session(tmp_path / "out", ports, Settings())
    inputs = random_inputs(ports, 3)
    answer = session.run(inputs)
    np.testing.assert_array_equal(answer["difference"], inputs["a"] - inputs["b"])
    np.testing.assert_array_equal(answer["larger"], (inputs["a"] > inputs["b"]).astype(np.int64))
    assert session.compute == "fp32, CPU"
    session.close()


def test_the_proof_is_in_the_weights_types(tmp_path: Path) -> None:
    network = Linear()
    network.layer.weight.data = network.layer.weight.data.half()
    network.layer.bias.data = network.layer.bias.data.half()
    network.register_buffer("scale", torch.ones(68))
    save_script(network, tmp_path / "model.pt")
    ports = signature(["x:float16:batch,16"], ["y:float16:batch,4"])
    proof = PYTORCH.open_session(tmp_path, ports, Settings()).precision_proof()
    assert proof is not None
    assert (proof.compute, proof.weights) == ((), (("fp16", 0.5), ("fp32", 0.5)))


def test_an_axis_never_seen_with_elements_is_served_with_any_size(tmp_path: Path) -> None:
    save_script(Doubling(), tmp_path / "export" / TORCHSCRIPT_FILE)
    (tmp_path / "out").mkdir()
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,0"])
    assert PYTORCH.convert(job(tmp_path / "export", ports), tmp_path / "out").outputs[0].wire_shape == (-1, -1)


def test_arguments_in_another_order_than_the_inputs_are_a_fault(tmp_path: Path) -> None:
    save_script(Minus(), tmp_path / "export" / TORCHSCRIPT_FILE)
    (tmp_path / "out").mkdir()
    ports = signature(["b:float32:batch,3", "a:float32:batch,3"], ["y:float32:batch,3"])
    with pytest.raises(BuildError, match="takes the arguments a, b; expected the inputs b, a"):
        PYTORCH.convert(job(tmp_path / "export", ports), tmp_path / "out")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK nothing")
    with pytest.raises(BuildError, match=r"PyTorch .* does not load model\.pt"):
        PYTORCH.open_session(tmp_path, signature(["x:float32:batch,4"], ["y:float32:batch,4"]), Settings())


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (["x:uint16:batch,2"], ["y:float32:batch,2"], "unsupported datatype TYPE_UINT16 for input 'x'"),
        (["x:float32:batch,2"], ["y:bfloat16:batch,2"], "unsupported datatype TYPE_BF16 for output 'y'"),
        (["x:string:batch"], ["y:float32:batch"], "unsupported datatype TYPE_STRING for input 'x'"),
        (["x:float32:batch,2", "rate:int64:"], ["y:float32:batch,2"], "input 'rate' is a scalar"),
        (["x:float32:batch,2"], ["y:float32:"], "output 'y' is a scalar which is not supported"),
        (["x:float32:batch,2"], ["y__1:float32:batch,2"], "the outputs y__1 are named <name>__<index>"),
        (["a b__1:float32:n,2", "c__0:float32:n,2"], ["y:float32:n,2"], "means the places 1, 0"),
    ],
)
def test_what_the_native_backend_cannot_carry(inputs: list[str], outputs: list[str], words: str) -> None:
    assert words in (PYTORCH.refuses(signature(inputs, outputs), RELEASE) or "")


@pytest.mark.parametrize("name", ["y", "y__0", "a/b:0", "y_1", "y__z"])
def test_other_names_are_fine(name: str) -> None:
    ports = signature(["b__1:float32:n,2", "a__0:float16:n,2"], ["z:float32:n,2"])
    outputs = signature(["x:float32:n"], ["y:float32:n,2"]).outputs
    from dataclasses import replace

    assert PYTORCH.refuses(Signature(ports.inputs, (replace(outputs[0], name=name),)), RELEASE) is None


def test_the_spec_s_threads_hold_until_the_session_is_closed(tmp_path: Path) -> None:
    save_script(Doubling(), tmp_path / TORCHSCRIPT_FILE)
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    before = torch.get_num_threads()
    session = PYTORCH.open_session(tmp_path, ports, Settings("fp32", {"intra_op_threads": before + 1}))
    assert torch.get_num_threads() == before + 1
    session.close()
    assert torch.get_num_threads() == before
