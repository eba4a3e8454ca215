"""The engine inspector's JSON, in the forms that TensorRT 8 to 11 write, as shares."""

from __future__ import annotations

import json
from typing import Any

from builder.frameworks.tensorrt.proof import engine_proof


def port(words: str, dims: list[int] | None = None, key: str = "Format/Datatype") -> dict[str, Any]:
    return {"Name": "t", "Location": "Device", "Dimensions": dims or [1, 8, 4, 4], key: words}


def layer(kind: str, inputs: str, weights: tuple[str, int] | None = None, **more: Any) -> dict[str, Any]:
    held = {"Weights": {"Type": weights[0], "Count": weights[1]}} if weights else {}
    key = more.pop("key", "Format/Datatype")
    dims = more.pop("dims", None)
    return (
        {"Name": "n", "LayerType": kind, "Inputs": [port(inputs, dims, key)], "Outputs": [port(inputs, dims, key)]}
        | held
        | more
    )


def proof(*layers: Any) -> Any:
    return engine_proof(json.dumps({"Layers": list(layers), "Bindings": []}))


def test_convolutions_are_weighed_by_their_multiplications() -> None:
    found = proof(
        layer(
            "CaskConvolution",
            "Thirty-two wide channel vectorized row major Int8 format",
            ("Int8", 300),
            ParameterType="Convolution",
        ),
        layer("CaskConvolution", "Row major linear FP32", ("Float", 100), ParameterType="Convolution"),
        layer("Reformat", "Row major linear FP32", ParameterType="Reformat", TacticName="conv"),
    )
    assert found.compute == (("int8", 0.75), ("fp32", 0.25))
    assert found.weights == (("int8", 0.75), ("fp32", 0.25))
    assert found.source == "TensorRT engine inspector"


def test_short_words_and_the_newer_key() -> None:
    assert proof(layer("gemm", "Half", dims=[2, 8])).compute == (("fp16", 1.0),)
    assert proof(layer("gemm", "BFloat16", key="Datatype")).compute == (("bf16", 1.0),)
    assert proof(layer("gemm", "Float")).compute == (("fp32", 1.0),)


def test_a_fused_attention_is_known_by_its_kernel() -> None:
    found = proof(
        layer("kgen", "Int8", TacticName="_gemm_mha_v2_0x1"), layer("kgen", "Half", TacticName="__myl_MoveConc")
    )
    assert found.compute == (("int8", 1.0),)


def test_flags_and_sizes_are_no_type_to_compute_in() -> None:
    mixed = layer("gemm", "Bool")
    mixed["Inputs"].append(port("Half"))
    assert proof(mixed).compute == (("fp16", 1.0),)


def test_an_engine_that_says_nothing_proves_nothing() -> None:
    assert proof(layer("kgen", "Half"), "just a name").compute == ()
    assert engine_proof("{}").compute == ()
