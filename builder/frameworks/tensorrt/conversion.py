"""The whole way of one model: parse, prove, profile, build. The same for TensorRT and for its stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder import defaults
from builder.errors import BuildError
from builder.frameworks.tensorrt.engine import Choices, build_engine, make_config
from builder.frameworks.tensorrt.network import parse, ports
from builder.frameworks.tensorrt.profiles import Batching, Profile, add_profiles, make_profiles
from builder.frameworks.tensorrt.proof import network_proof
from builder.measurement import REFERENCE_FILE, PrecisionProof
from builder.onnx_tools.reading import graphs, read_onnx
from builder.samples import load_requests
from builder.tensors import Signature

CONTROL: Final = ("If", "Loop", "Scan")
SCOPES: Final = ("Scope", "onditional", "loop")
"""What TensorRT's builder says when it cannot place what is inside branches or loops; it names no node then."""


@dataclass(frozen=True, slots=True)
class Built:
    """An engine, and what is known of it without running it."""

    plan: bytes
    ports: Signature
    proof: PrecisionProof
    layers: int
    profiles: tuple[Profile, ...]


def convert_model(  # noqa: PLR0913
    library: Any,  # noqa: ANN401 - the module
    model: Path,
    export: Path,
    signature: Signature,
    options: Mapping[str, Any],
    *,
    cache_file: Path | None = None,
) -> Built:
    """Build an engine for this machine's GPU; the stand-in's needs none. `cache_file` keeps timings of kernels.

    Raises:
        BuildError: the parser (every error with its node) or the builder refuses the model.
        SpecError: the spec's profiles do not fit the model.
    """
    network = parse(library, model)
    declared = ports(network, signature)
    proof = network_proof(network)
    samples = [request.inputs for request in load_requests(export / REFERENCE_FILE, signature)]
    profiles = make_profiles(signature, _batching(options), samples, options.get("profiles", ()))
    config = make_config(network, Choices.of(options))
    add_profiles(network, config, profiles, samples)
    try:
        plan = build_engine(network, config, cache_file)
    except BuildError as error:
        raise _explained(error, model) from error
    return Built(plan, declared, proof, network.definition.num_layers, profiles)


def _batching(options: Mapping[str, Any]) -> Batching:
    largest = options.get("max_batch_size") or defaults.MAX_BATCH_SIZE
    return Batching(options.get("best_batch_size") or largest, largest)


def _explained(error: BuildError, path: Path) -> BuildError:
    """The builder names no node when it cannot place branches or loops: then they are named."""
    if not any(word in error.message for word in SCOPES):
        return error
    nodes = [node.op_type for graph in graphs(read_onnx(path)) for node in graph.node]
    control = [word for word in CONTROL if word in nodes]
    if not control:
        return error
    counted = " and ".join(f"{nodes.count(word)} {word}" for word in control)
    return BuildError(
        f"{error.message}; the message is about the model's control flow: {counted}",
        remedy=f"export the model without {' and '.join(control)}, or use onnxruntime+tensorrt, which leaves them out",
    )
