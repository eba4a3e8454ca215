"""Whatever the spec's words allow, the server's rules take: what could not load is refused where it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from builder.checks.core import problems
from builder.native_rules import refusals
from builder.scan import ModelDir
from builder.spec_serving import BatchingSpec, InstancesSpec, VersionsSpec
from builder.tensors import Signature, Tensor
from builder.triton_config import ConfigRequest, parse_config, render_config

PORTS = Signature((Tensor("x", "float32", ("n", 4)),), (Tensor("y", "float32", ("n", 4)),))
TABLE = {
    side: [{"name": port.name, "dtype": port.dtype, "shape": list(port.wire_shape)} for port in getattr(PORTS, side)]
    for side in ("inputs", "outputs")
}
SMALL = st.integers(0, 4)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the words."""
    return st.fixed_dictionaries({}, optional=fields)


QUEUE = some(
    max_size=SMALL, timeout_us=SMALL, on_timeout=st.sampled_from(["reject", "delay"]), allow_override=st.booleans()
)
BATCHING = some(
    max_batch_size=st.integers(0, 9), preferred=st.lists(SMALL, max_size=3), max_queue_delay_us=SMALL,
    dynamic=st.booleans(), preserve_ordering=st.booleans(), queue=QUEUE,
    priorities=st.fixed_dictionaries(
        {"levels": SMALL, "default": SMALL}, optional={"queues": st.dictionaries(SMALL, QUEUE)}
    ),
)  # fmt: skip
INSTANCES = st.lists(
    some(
        count=SMALL, kind=st.sampled_from(["auto", "cpu", "gpu"]),
        gpus=st.lists(st.integers(0, 1), max_size=2, unique=True),
        name=st.sampled_from(["a", "b"]), host_policy=st.just("numa_0"), passive=st.booleans(), priority=SMALL,
        profiles=st.lists(SMALL, max_size=2),
        resources=st.lists(st.fixed_dictionaries({"name": st.sampled_from(["R", "S"]), "count": SMALL}), max_size=2),
    ),
    min_size=1, max_size=3,
)  # fmt: skip
VERSIONS = some(keep=SMALL, serve=st.one_of(st.sampled_from(["latest", "all"]), SMALL, st.lists(SMALL, max_size=3)))


@given(
    BATCHING, INSTANCES, VERSIONS, st.sampled_from(["onnxruntime", "openvino", "pytorch", "tensorrt"]), st.booleans()
)
def test_what_the_words_allow_is_taken(
    batching: dict[str, Any], instances: list[dict[str, Any]], versions: dict[str, Any], backend: str, cache: bool
) -> None:
    try:
        words = {
            "batching": BatchingSpec(**batching),
            "instances": tuple(InstancesSpec(**group) for group in instances),
            "versions": VersionsSpec(**versions),
        }
    except ValidationError:
        assume(False)
    request = ConfigRequest(
        "m", backend, "26.07", PORTS, PORTS, batch_proven=True, response_cache=cache, **words  # type: ignore[arg-type]
    )  # fmt: skip
    text = render_config(request).text
    config = parse_config(text)
    ports: Any = {} if backend in ("pytorch", "tensorrt") else TABLE
    assert refusals(backend, config, ports, auto_complete=False, gpus=2, release="26.07") == []
    assert list(problems(ModelDir("m", Path("m"), text, config), "26.07")) == []
