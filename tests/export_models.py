"""Small models and works for the tests of sources and exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from builder.export import run_export
from builder.measurement import EXPORT_FILE, ONNX_FILE, REFERENCE_FILE, ExportReport
from builder.recognise import recognise
from builder.records import read_record
from builder.samples import load_requests
from builder.work import Export, SamplesRef, SourceRef

F32 = TensorProto.FLOAT
I64 = TensorProto.INT64


def work_of(
    path, *, inputs=(), outputs=(), opset=26, ir_version=13, samples=None, labels=None, max_batch_size=8, **source
):
    ref = SourceRef(source.pop("format", None) or recognise(Path(path)), str(path), "digest", **source)
    sample_ref = SamplesRef(samples and str(samples), "", labels, 0, max_batch_size)
    return Export(ref, tuple(inputs), tuple(outputs), sample_ref, opset, ir_version, {}, "")


def export(path, out, **options):
    """Run the export; the report, the requests, and the path of the ONNX file."""
    out.mkdir(parents=True, exist_ok=True)
    run_export(work_of(path, **options), out)
    report = read_record(ExportReport, out / EXPORT_FILE)
    return report, load_requests(out / REFERENCE_FILE, report.signature), out / ONNX_FILE


def value(name, dtype=F32, shape=("batch", 4)):
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(nodes, inputs, outputs, weights=None, *, opset=18, ir_version=10):
    initialisers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def linear(**options):
    """x float32[batch,4] → y float32[batch,3]."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return model_of(nodes, [value("x")], [value("y", shape=("batch", 3))], {"w": weight}, **options)


def save(model, path):
    onnx.save(model, str(path))
    return path


def plain_run(path, feeds):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path)).run(None, feeds)
