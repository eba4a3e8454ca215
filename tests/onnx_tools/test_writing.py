"""External data: gathered into one file, moved out where the protobuf would burst, and found again by every library."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import signature, write_graph

from builder.errors import SpecError
from builder.onnx_tools import writing
from builder.onnx_tools.exported import Limits, settle
from builder.onnx_tools.reading import data_pieces, external_tensors, read_onnx
from builder.onnx_tools.running import open_plain, run_plain
from builder.onnx_tools.writing import data_file, gather_data, settle_data, stored_bytes, write_onnx

PORTS = signature(["x:float32:batch,64"], ["y:float32:batch,64"])
GIB = 1 << 30


def two_layers(path: Path, *, tied: bool = False) -> Path:
    weights = {
        name: np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32)
        for seed, name in enumerate(("a",) if tied else ("a", "b"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "a" if tied else "b"], ["y"]),
    ]
    return write_graph(path, PORTS, nodes, weights)


def answer(path: Path) -> np.ndarray:
    x = np.random.default_rng(9).standard_normal((3, 64)).astype(np.float32)
    return np.asarray(run_plain(open_plain(path), ["y"], {"x": x})[0])


def scattered(path: Path) -> Path:
    """As torch's older exporter writes a model that is too large: one file per weight."""
    model = onnx.load(two_layers(path))
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    return path


def test_scattered_weights_become_one_file(tmp_path: Path) -> None:
    path = scattered(tmp_path / "model.onnx")
    before = answer(path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "a", "b"}
    model = read_onnx(path)
    settle_data(model, path)
    path.write_bytes(model.SerializeToString())
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    onnx.checker.check_model(str(path))
    np.testing.assert_array_equal(answer(path), before)


def test_settled_data_stays_as_it_is(tmp_path: Path) -> None:
    path = scattered(tmp_path / "model.onnx")
    model = read_onnx(path)
    settle_data(model, path)
    wanted = model.SerializeToString()
    stamp = data_file(path).stat().st_mtime_ns
    settle_data(model, path)
    assert model.SerializeToString() == wanted
    assert data_file(path).stat().st_mtime_ns == stamp


def test_only_what_is_needed_is_copied_and_ties_stay_one(tmp_path: Path) -> None:
    origin = scattered(tmp_path / "from" / "model.onnx")
    model = read_onnx(origin)
    first, second = external_tensors(model)
    del second.external_data[:]
    second.external_data.extend(first.external_data)
    destination = tmp_path / "model.onnx.data"
    gather_data(model, origin, destination)
    assert destination.stat().st_size == 64 * 64 * 4
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in external_tensors(model)]
    assert places == [{"location": "model.onnx.data", "offset": "0", "length": "16384"}] * 2


def test_weights_start_at_pages(tmp_path: Path) -> None:
    origin = scattered(tmp_path / "from" / "model.onnx")
    model = read_onnx(origin)
    bias = numpy_helper.from_array(np.ones(300, np.float32), "unused")
    model.graph.initializer.insert(0, bias)
    (origin.parent / "unused").write_bytes(bias.raw_data)
    writing.point(model.graph.initializer[0], "unused", 0, 1200)
    model.graph.initializer[0].ClearField("raw_data")
    write_onnx(model, tmp_path / "model.onnx", origin=origin)
    pieces = data_pieces(read_onnx(tmp_path / "model.onnx"), tmp_path / "model.onnx")
    assert [piece.offset for piece in pieces] == [0, 4096, 4096 + 16384]
    assert (tmp_path / "model.onnx.data").read_bytes()[:1200] == bias.raw_data


def test_large_models_are_written_with_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(two_layers(tmp_path / "model.onnx"))
    assert stored_bytes(model) == 2 * 64 * 64 * 4
    before = answer(tmp_path / "model.onnx")
    small = tmp_path / "small.onnx"
    monkeypatch.setattr(writing, "EXTERNAL_FROM_BYTES", stored_bytes(model) + 1)
    write_onnx(model, small)
    assert not data_file(small).exists()
    large = tmp_path / "large.onnx"
    monkeypatch.setattr(writing, "EXTERNAL_FROM_BYTES", stored_bytes(model))
    write_onnx(model, large)
    assert large.stat().st_size < 1024
    onnx.checker.check_model(str(large))
    np.testing.assert_array_equal(answer(large), before)


def test_a_data_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    origin = scattered(tmp_path / "from" / "model.onnx")
    model = read_onnx(origin)
    writing.point(external_tensors(model)[0], "a", 0, 64 * 64 * 4)
    (origin.parent / "a").write_bytes(b"short")
    with pytest.raises(SpecError, match="has 5 bytes"):
        gather_data(model, origin, tmp_path / "model.onnx.data")


def beyond_2_gib(path: Path) -> Path:
    """A table of 2.2 GB of which the disk holds nothing but one row."""
    rows, width = 2_200_000_000 // 4096, 1024
    with path.with_name("table.bin").open("wb") as stream:
        stream.truncate(rows * width * 4)
        stream.seek((rows - 1) * width * 4)
        stream.write(np.arange(width, dtype=np.float32).tobytes())
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=(rows, width), data_location=1)
    writing.point(table, "table.bin", 0, rows * width * 4)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "table",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [table],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


READ = """
import sys
from pathlib import Path
from builder.inspection import inspect_model
from builder.onnx_tools.reading import count_parameters, data_pieces, read_onnx
from builder.ports import inspect_ports
path = Path(sys.argv[1])
import onnx
onnx.checker.check_model(str(path))
model = read_onnx(path)
print(count_parameters(model), data_pieces(model, path)[0].length, inspect_ports(path).missing_data)
print(inspect_model(path).description.parameters)
"""


def test_a_model_beyond_2_gib_is_read_without_its_weights(tmp_path: Path) -> None:
    """Checker, ports, inspection: in a process that may not even hold half of the weights."""
    path = beyond_2_gib(tmp_path / "model.onnx")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (GIB, GIB)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count = 2_200_000_000 // 4096 * 1024
    assert done.stdout.split() == [str(count), str(4 * count), "()", str(count)]


def test_an_exporter_that_writes_one_large_file_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's older exporter keeps up to 2 GiB in the protobuf, which libraries then hold twice."""
    path = two_layers(tmp_path / "model.onnx")
    before = answer(path)
    monkeypatch.setattr(writing, "EXTERNAL_FROM_BYTES", 1)
    settle(path, PORTS, Limits(18, 9))
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    np.testing.assert_array_equal(answer(path), before)
