"""The table of releases and its reader."""

from __future__ import annotations

import pytest

from builder.errors import SpecError
from builder.releases import fields_unknown, get_release, known_releases, new_fields


def test_the_default_release_bundles_what_the_container_has() -> None:
    release = get_release("26.07")
    assert (release.server, release.onnxruntime, release.openvino) == ("2.71.0", "1.27.0", "2026.2.0")
    assert (release.tensorrt, release.tensorrt_verified) == ("11.1.0.106", True)
    assert (release.python, release.max_ir, release.max_opset) == ("3.12", 13, 26)


def test_an_unverified_tensorrt_is_marked() -> None:
    assert not get_release("26.08").tensorrt_verified
    assert get_release("25.09").tensorrt_verified


def test_every_month_from_24_01_to_26_08_is_there_once_in_order() -> None:
    names = [release.release for release in known_releases()]
    assert names == [f"{year}.{month:02}" for year in (24, 25, 26) for month in range(1, 13)][: len(names)]
    assert names[-1] == "26.08"


def test_what_a_release_loads_never_shrinks() -> None:
    known = known_releases()
    assert [r.max_ir for r in known] == sorted(r.max_ir for r in known)
    assert [r.max_opset for r in known] == sorted(r.max_opset for r in known)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("26.7", "nearest known is 26.07"),
        ("23.12", "nearest known is 24.01"),
        ("26.11", "newest is 26.08"),
        ("x", "newest is 26.08"),
    ],
)
def test_an_unknown_release_is_refused_with_the_next_thing_to_write(name: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        get_release(name)
    assert "--triton" in caught.value.remedy


@pytest.mark.parametrize(
    ("release", "unknown"),
    [
        ("24.07", {"is_non_linear_format_io", "model_metrics", "max_inflight_requests"}),
        ("24.10", {"model_metrics", "max_inflight_requests"}),
        ("24.11", {"max_inflight_requests"}),
        ("25.11", set()),
    ],
)
def test_fields_that_a_release_does_not_know(release: str, unknown: set[str]) -> None:
    assert {field.partition(".")[2] for field in fields_unknown(release)} == unknown


def test_every_new_field_exists_in_the_newest_proto() -> None:
    from tritonclient.grpc import model_config_pb2

    messages = [model_config_pb2.ModelConfig, model_config_pb2.ModelInput, model_config_pb2.ModelOutput]
    fields = {
        f"{kind.DESCRIPTOR.name}.{field.name}"
        for kind in (*messages, model_config_pb2.ModelEnsembling)
        for field in kind.DESCRIPTOR.fields
    }
    assert {field.field for field in new_fields()} <= fields
