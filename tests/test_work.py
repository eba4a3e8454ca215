from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.records import from_json, to_json
from builder.tensors import Tensor
from builder.work import (
    NOT_IN_KEY,
    Convert,
    Export,
    FileRef,
    Measure,
    OutputShape,
    Packages,
    Pin,
    Prepare,
    Quantization,
    SamplesRef,
    Search,
    SourceRef,
    Target,
    Work,
    parse_target,
    portable,
    work_key,
    work_needs,
)

TARGET = Target("onnxruntime", "fp32")
EXPORT = Export(
    source=SourceRef(
        "onnx",
        "/home/a/m.onnx",
        "d1",
        "nets:build",
        '{"n": 1}',
        "/home/a",
        allow_pickle=False,
        files=(FileRef("table", "/home/a/t.txt", "t.txt:d3"),),
        requirements=("pillow==11.3.0",),
        shapes=(OutputShape("path", ("batch", 4)),),
        environment="d5",
    ),
    inputs=(Tensor("x", "float32", ("batch", 3)),),
    outputs=("y",),
    samples=SamplesRef("/home/a/s.npz", "d2", "label", 0, 8),
    opset=18,
    ir_version=9,
    libraries={"onnx": "1.0"},
    code="c",
)
PREPARE = Prepare(
    export="e",
    precision="int8",
    dialect="onnx",
    optimize=True,
    quantization=Quantization("static", "minmax", per_channel=True),
    search=Search({"min_cosine": 0.9}, 60.0),
    opset=21,
    ir_version=10,
    machine={"cpu": "z"},
    libraries={"onnx": "1.0"},
    code="c",
)
CONVERT = Convert("e", "p", TARGET, "26.07", "{}", {"onnxruntime": "1"}, "c", {"gpu": "h"})
MEASURE = Measure("e", "v", TARGET, "{}", {"cpu": "z", "cores": "2"}, {"numpy": "2"}, "c")
PACKAGES = Packages("3.12", ("manylinux_2_28_x86_64",), (Pin("pillow", "11.3.0", "d4"),))
WORKS = (PACKAGES, EXPORT, PREPARE, CONVERT, MEASURE)


def variants(value: Any) -> list[Any]:
    """The value with each of its parts, at any depth, changed once; with the name of the field."""
    if dataclasses.is_dataclass(value):
        return [
            (f"{field.name}.{name}" if name else field.name, dataclasses.replace(value, **{field.name: changed}))
            for field in dataclasses.fields(value)
            for name, changed in variants(getattr(value, field.name))
        ]
    if isinstance(value, dict):
        return [("", {**value, "another": "1"}), ("", dict.fromkeys(value, "changed"))]
    if isinstance(value, tuple):
        return [("", (*value, value[0])), ("", ())]
    if isinstance(value, bool):
        return [("", not value)]
    if isinstance(value, int):
        return [("", value + 1)]
    return [("", f"{value}_")]


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.kind)
def test_every_field_decides_the_key_but_the_places(work: Work) -> None:
    seen = {work_key(work)}
    for name, changed in variants(work):
        key = work_key(changed)
        if name.split(".")[-1] in NOT_IN_KEY:
            assert key == work_key(work), f"{name} is a place on this machine and must not matter"
        else:
            assert key not in seen, f"{name} changes the result and not the key"
            seen.add(key)


def test_source_and_samples_paths_and_the_import_root_are_the_only_places() -> None:
    places = {name for name, _ in variants(EXPORT) if name.split(".")[-1] in NOT_IN_KEY}
    assert places == {"source.path", "source.import_root", "samples.path"}


def test_the_place_of_a_file_of_a_step_never_matters() -> None:
    moved = dataclasses.replace(EXPORT.source, files=(FileRef("table", "/home/b/t.txt", "t.txt:d3"),))
    assert work_key(dataclasses.replace(EXPORT, source=moved)) == work_key(EXPORT)


def test_python_code_has_the_precision_it_has() -> None:
    assert parse_target("python") == Target("python", "native")


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_machine_path_never_matters(path: str, root: str) -> None:
    moved = dataclasses.replace(
        EXPORT,
        source=dataclasses.replace(EXPORT.source, path=path, import_root=root),
        samples=dataclasses.replace(EXPORT.samples, path=path),
    )
    assert work_key(moved) == work_key(EXPORT)
    assert portable(to_json(moved)) == portable(to_json(EXPORT))


def test_real_samples_and_random_ones_differ() -> None:
    random = dataclasses.replace(EXPORT, samples=SamplesRef(None, "", None, 0, 8))
    assert work_key(random) != work_key(EXPORT)


def test_the_order_of_libraries_does_not_matter() -> None:
    left = dataclasses.replace(CONVERT, libraries={"a": "1", "b": "2"})
    right = dataclasses.replace(CONVERT, libraries={"b": "2", "a": "1"})
    assert work_key(left) == work_key(right)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.kind)
def test_a_work_survives_json_with_its_key(work: Work) -> None:
    assert work_key(from_json(type(work), to_json(work))) == work_key(work)


def test_needs_name_kind_and_key() -> None:
    assert work_needs(EXPORT) == work_needs(PACKAGES) == ()
    assert work_needs(dataclasses.replace(EXPORT, packages="k")) == (("packages", "k"),)
    assert work_needs(dataclasses.replace(MEASURE, packages="k"))[-1] == ("packages", "k")
    assert work_needs(dataclasses.replace(CONVERT, prepare=None, packages="k"))[-1] == ("packages", "k")
    assert work_needs(PREPARE) == (("export", "e"),)
    assert work_needs(CONVERT) == (("export", "e"), ("prepare", "p"))
    assert work_needs(dataclasses.replace(CONVERT, prepare=None)) == (("export", "e"),)
    assert work_needs(MEASURE) == (("export", "e"), ("convert", "v"))


@pytest.mark.parametrize(
    ("text", "target"),
    [("openvino:fp16", Target("openvino", "fp16")), ("openvino", Target("openvino", "fp32"))],
)
def test_targets_are_backend_and_precision(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize("text", ["", ":fp32", "a:b:c"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not BACKEND:PRECISION"):
        parse_target(text)
