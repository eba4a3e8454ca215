"""Ensembles with their members: every edge by name, type, shape and batch; missing, cyclic, unused, produced twice."""

# ruff: noqa: E501 - a case is a line

from corpus import MODEL_PY, PLAIN, Case

Files = dict[str, str | bytes]


def io(side: str, *ports: str) -> str:
    """`x:FP32:2,3` or `x:FP32:2?` (optional); reshape after `>`."""
    parts = []
    for port in ports:
        name, kind, dims = port.rstrip("?").split(":")
        dims, _, shape = dims.partition(">")
        more = (" optional: true" if port.endswith("?") else "") + (
            f" reshape {{ shape: [ {shape} ] }}" if shape else ""
        )
        parts.append(f'{{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ]{more} }}')
    return f"{side} [ {', '.join(parts)} ]\n"


def member(
    suffix: str, inputs: str = "x:FP32:2", outputs: str = "y:FP32:2", *, batch: int = 8, more: str = ""
) -> Files:
    text = f'backend: "python"\nmax_batch_size: {batch}\n{io("input", *inputs.split())}{io("output", *outputs.split())}{more}'
    return {f"@M_{suffix}/config.pbtxt": text, f"@M_{suffix}/1/model.py": MODEL_PY}


def step(suffix: str, inputs: str, outputs: str, more: str = "model_version: -1") -> str:
    """Maps as `model=ensemble model=ensemble`."""
    maps = "".join(
        f' {side}_map {{ key: "{pair.split("=")[0]}" value: "{pair.split("=")[1]}" }}'
        for side, pairs in (("input", inputs), ("output", outputs))
        for pair in pairs.split()
    )
    return f'{{ model_name: "@M_{suffix}" {more}{maps} }}'


def ensemble(
    steps: list[str], inputs: str = "in:FP32:2", outputs: str = "out:FP32:2", *, batch: int = 8, more: str = "",
    head: str = 'platform: "ensemble"', name: str = "@M", version: bool = True,
) -> Files:  # fmt: skip
    text = f"{head}\nmax_batch_size: {batch}\n{io('input', *inputs.split())}{io('output', *outputs.split())}"
    text += f"ensemble_scheduling {{ step [ {', '.join(steps)} ] }}\n{more}"
    return {f"{name}/config.pbtxt": text, **({f"{name}/1/.keep": ""} if version else {})}


A, B = member("a"), member("b")
FIRST, SECOND = step("a", "x=in", "y=mid"), step("b", "x=mid", "y=out")
CHAIN = [FIRST, SECOND]
ONE = [step("a", "x=in", "y=out")]


def pair(a: Files, b: Files, **more: object) -> Files:
    return ensemble(CHAIN, **more) | a | b  # type: ignore[arg-type]


def cases() -> list[Case]:
    return [Case(f"ensembles_{name}", files) for name, files in {**GRAPHS, **EDGES, **FIELDS, **NESTED}.items()]


TWO_IN, TWO_OUT = member("a", "x:FP32:2 z:FP32:2"), member("a", "x:FP32:2", "y:FP32:2 w:FP32:2")
GRAPHS: dict[str, Files] = {
    "one": ensemble(ONE) | A,
    "chain": pair(A, B),
    "chain_backwards": ensemble([SECOND, FIRST]) | A | B,
    "member_missing": ensemble(CHAIN) | A,
    "all_missing": ensemble(ONE),
    "member_without_version": ensemble(ONE) | {"@M_a/config.pbtxt": A["@M_a/config.pbtxt"]},
    "member_refused": ensemble(ONE) | member("a", more="instance_group { kind: KIND_GPU }"),
    "member_unparsable": ensemble(ONE) | {"@M_a/config.pbtxt": "nonsense", "@M_a/1/model.py": MODEL_PY},
    "no_steps": ensemble([]) | A,
    "itself": ensemble([step("a", "x=in", "y=out").replace("@M_a", "@M")]),
    "cyclic_tensors": ensemble([step("a", "x=in z=back", "y=mid"), step("b", "x=mid", "y=out w=back")])
    | TWO_IN | member("b", outputs="y:FP32:2 w:FP32:2"),
    "cyclic_single": ensemble([step("a", "x=in z=out", "y=out")]) | TWO_IN,
    "produced_twice": ensemble([step("a", "x=in", "y=out"), step("b", "x=in", "y=out")]) | A | B,
    "produced_twice_one_step": ensemble([step("a", "x=in", "y=out w=out")]) | TWO_OUT,
    "output_is_input": ensemble([step("a", "x=in", "y=in")]) | A,
    "output_is_input_too": ensemble([step("a", "x=in", "y=in"), step("b", "x=in", "y=out")]) | A | B,
    "unused_input": ensemble(ONE, "in:FP32:2 extra:FP32:2") | A,
    "unused_tensor": ensemble([step("a", "x=in", "y=out w=rest")]) | TWO_OUT,
    "unused_member_output": ensemble([step("a", "x=in", "y=out")]) | TWO_OUT,
    "no_source": ensemble([step("a", "x=in z=nowhere", "y=out")]) | TWO_IN,
    "unused_step": ensemble([*ONE, step("b", "x=in", "y=rest")]) | A | B,
    "output_not_written": ensemble(ONE, outputs="out:FP32:2 more:FP32:2") | A,
    "output_is_an_input": ensemble(ONE, outputs="out:FP32:2 in:FP32:2") | A,
    "only_input_as_output": ensemble(ONE, outputs="in:FP32:2") | A,
    "middle_is_output": ensemble(CHAIN, outputs="out:FP32:2 mid:FP32:2") | A | B,
    "input_unmapped": ensemble([step("a", "x=in", "y=out")]) | TWO_IN,
    "input_unmapped_optional": ensemble([step("a", "x=in", "y=out")]) | member("a", "x:FP32:2 z:FP32:2?"),
    "input_mapped_twice": ensemble([step("a", "x=in", "y=out").replace("output_map", 'input_map { key: "x" value: "in2" } output_map', 1)],
                                   "in:FP32:2 in2:FP32:2") | A,
    "input_used_twice": ensemble([step("a", "x=in z=in", "y=out")]) | TWO_IN,
    "input_fans_out": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid z=in", "y=out")])
    | A | member("b", "x:FP32:2 z:FP32:2"),
    "diamond": ensemble([FIRST, step("b", "x=mid", "y=l"), step("c", "x=mid", "y=r"), step("d", "x=l z=r", "y=out")])
    | A | B | member("c") | member("d", "x:FP32:2 z:FP32:2"),
    "same_model_twice": ensemble([FIRST, step("a", "x=mid", "y=out")]) | A,
    "unknown_input": ensemble([step("a", "q=in", "y=out")]) | A,
    "unknown_output": ensemble([step("a", "x=in", "q=out")]) | A,
    "no_input_map": ensemble([step("a", "", "y=out")]) | A,
    "no_output_map": ensemble([step("a", "x=in", "")]) | A,
    "empty_map_values": ensemble([step("a", "x=", "y=")]) | A,
    "no_model_name": ensemble([step("a", "x=in", "y=out").replace('model_name: "@M_a"', "")]) | A,
    "two_islands": ensemble([step("a", "x=in", "y=out"), step("b", "x=in2", "y=out2")], "in:FP32:2 in2:FP32:2",
                            "out:FP32:2 out2:FP32:2") | A | B,
    "constant_member": ensemble([step("a", "x=in", "y=out"), step("b", "x=in", "y=out2")],
                                outputs="out:FP32:2 out2:FP32:2") | A | B,
}  # fmt: skip
EDGES: dict[str, Files] = {
    "type_in": pair(A, B, inputs="in:INT32:2"),
    "type_out": pair(A, B, outputs="out:FP16:2"),
    "type_between": pair(A, member("b", "x:INT64:2")),
    "shape_in": pair(A, B, inputs="in:FP32:3"),
    "shape_out": pair(A, B, outputs="out:FP32:3"),
    "shape_between": pair(A, member("b", "x:FP32:3")),
    "rank_between": pair(A, member("b", "x:FP32:2,1")),
    "dynamic_in": pair(A, B, inputs="in:FP32:-1"),
    "dynamic_out": pair(A, B, outputs="out:FP32:-1"),
    "dynamic_between": pair(A, member("b", "x:FP32:-1")),
    "dynamic_rank": pair(A, member("b", "x:FP32:-1,-1")),
    "reshape_member": pair(A, member("b", "x:FP32:2>2,1")),
    "reshape_member_out": pair(member("a", outputs="y:FP32:2>1,2"), B),
    "reshape_ensemble": pair(A, B, inputs="in:FP32:1,2>2"),
    "reshape_ensemble_wrong": pair(A, B, inputs="in:FP32:2>1,2"),
    "reshape_ensemble_out": pair(A, B, outputs="out:FP32:1,2>2"),
    "batch_smaller_member": pair(A, member("b", batch=4)),
    "batch_larger_member": pair(A, member("b", batch=16)),
    "batch_zero_ensemble": pair(A, B, batch=0),
    "batch_zero_ensemble_full": pair(A, B, batch=0, inputs="in:FP32:-1,2", outputs="out:FP32:-1,2"),
    "batch_zero_ensemble_fixed": pair(A, B, batch=0, inputs="in:FP32:1,2", outputs="out:FP32:1,2"),
    "batch_zero_member": pair(A, member("b", batch=0)),
    "batch_zero_member_full": pair(A, member("b", "x:FP32:-1,2", "y:FP32:-1,2", batch=0)),
    "batch_zero_member_fixed": pair(A, member("b", "x:FP32:8,2", "y:FP32:8,2", batch=0)),
    "batch_zero_member_squeeze": pair(A, member("b", "x:FP32:-1,2", "y:FP32:2", batch=0)),
    "batch_one_ensemble": pair(A, B, batch=1),
    "batch_negative": pair(A, B, batch=-1),
    "batch_zero_all": pair(member("a", batch=0), member("b", batch=0), batch=0),
    "string_edges": pair(member("a", "x:STRING:1"), B, inputs="in:STRING:1"),
    "fan_shape": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid z=in", "y=out")])
    | A | member("b", "x:FP32:2 z:FP32:3"),
    "dynamic_two_ways": ensemble([FIRST, step("b", "x=mid", "y=l"), step("c", "x=mid", "y=r")], outputs="l:FP32:2 r:FP32:2")
    | member("a", outputs="y:FP32:-1") | B | member("c", "x:FP32:3"),
}  # fmt: skip
NAKED = 'platform: "ensemble"'
FIELDS: dict[str, Files] = {
    "no_version": ensemble(ONE, version=False) | A,
    "backend_too": ensemble(ONE, head=NAKED + '\nbackend: "python"') | A,
    "no_platform": ensemble(ONE, head="") | A,
    "no_platform_dotted": {key.replace("@M/", "@M.x/"): value for key, value in ensemble(ONE, head="").items()} | A,
    "other_platform": ensemble(ONE, head='platform: "onnxruntime_onnx"') | A,
    "python_backend": ensemble(ONE, head='backend: "python"') | A | {"@M/1/model.py": MODEL_PY},
    "backend_ensemble": ensemble(ONE, head='backend: "ensemble"') | A,
    "platform_case": ensemble(ONE, head='platform: "Ensemble"') | A,
    "instance_group": ensemble(ONE, more="instance_group { kind: KIND_CPU }") | A,
    "instance_group_empty": ensemble(ONE, more="instance_group [ ]") | A,
    "optimization": ensemble(ONE, more="optimization { }") | A,
    "warmup": ensemble(ONE, more='model_warmup { name: "w" batch_size: 1 inputs { key: "in" value { data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } } }') | A,
    "dynamic_batching": ensemble(ONE, more="dynamic_batching { }") | A,
    "cache": ensemble(ONE, more="response_cache { enable: true }") | A,
    "parameters": ensemble(ONE, more='parameters { key: "a" value { string_value: "b" } }') | A,
    "decoupled_said": ensemble(ONE, more="model_transaction_policy { decoupled: true }") | A,
    "decoupled_member": ensemble(ONE) | member("a", more="model_transaction_policy { decoupled: true }"),
    "decoupled_member_cache": ensemble(ONE, more="response_cache { enable: true }")
    | member("a", more="model_transaction_policy { decoupled: true }"),
    "decoupled_joined": ensemble([step("a", "x=in", "y=l"), step("b", "x=in", "y=r"), step("d", "x=l z=r", "y=out")])
    | member("a", more="model_transaction_policy { decoupled: true }") | B | member("d", "x:FP32:2 z:FP32:2"),
    "decoupled_both_outputs": ensemble([step("a", "x=in", "y=l w=r"), step("d", "x=l z=r", "y=out")])
    | member("a", outputs="y:FP32:2 w:FP32:2", more="model_transaction_policy { decoupled: true }")
    | member("d", "x:FP32:2 z:FP32:2"),
    "decoupled_and_input": ensemble([step("a", "x=in", "y=l"), step("d", "x=l z=in", "y=out")])
    | member("a", more="model_transaction_policy { decoupled: true }") | member("d", "x:FP32:2 z:FP32:2"),
    "version_one": ensemble([step("a", "x=in", "y=out", "model_version: 1")]) | A,
    "version_missing": ensemble([step("a", "x=in", "y=out", "model_version: 2")]) | A,
    "version_not_served": ensemble([step("a", "x=in", "y=out", "model_version: 1")]) | A | {"@M_a/2/model.py": MODEL_PY},
    "version_two_of_all": ensemble([step("a", "x=in", "y=out", "model_version: 1")])
    | member("a", more="version_policy { all { } }") | {"@M_a/2/model.py": MODEL_PY},
    "version_unset": ensemble([step("a", "x=in", "y=out", "")]) | A,
    "version_zero_there": ensemble([step("a", "x=in", "y=out", "")])
    | {key.replace("/1/", "/0/"): value for key, value in A.items()},
    "version_minus_two": ensemble([step("a", "x=in", "y=out", "model_version: -2")]) | A,
    "inflight": ensemble([step("a", "x=in", "y=out")]) | {"@M/config.pbtxt": str(ensemble(ONE)["@M/config.pbtxt"]).replace("step [", "max_inflight_requests: 4 step [")} | A,
    "namespace": ensemble([step("a", "x=in", "y=out", 'model_version: -1 model_namespace: "other"')]) | A,
    "sequence_member": ensemble(ONE) | member("a", more="sequence_batching { }"),
    "dynamic_member": ensemble(ONE) | member("a", more="dynamic_batching { }"),
    "label_missing": {key: str(value).replace('"out" data_type', '"out" label_filename: "labels.txt" data_type', 1) for key, value in ensemble(ONE).items()} | A,
    "two_versions": ensemble(ONE, more="version_policy { all { } }") | {"@M/2/.keep": ""} | A,
    "model_file_too": ensemble(ONE) | A | {"@M/1/model.py": MODEL_PY},
    "model_file_no_platform": ensemble(ONE, head="") | A | {"@M/1/model.py": MODEL_PY},
    "same_name_ports": ensemble([step("a", "x=x", "y=y")], "x:FP32:2", "y:FP32:2") | A,
    "input_twice": ensemble(ONE, "in:FP32:2 in:FP32:2") | A,
    "output_twice": ensemble(ONE, outputs="out:FP32:2 out:FP32:2") | A,
    "no_dims": {key: str(value).replace("dims: [ 2 ]", "", 1) for key, value in ensemble(ONE).items()} | A,
    "no_inputs": {key: str(value).replace(io("input", "in:FP32:2"), "") for key, value in ensemble(ONE).items()} | A,
    "no_outputs": {key: str(value).replace(io("output", "out:FP32:2"), "") for key, value in ensemble(ONE).items()} | A,
    "optional_input": ensemble(ONE, "in:FP32:2?") | A,
    "optional_both": ensemble([step("a", "x=in z=in2", "y=out")], "in:FP32:2 in2:FP32:2?") | member("a", "x:FP32:2 z:FP32:2?"),
    "member_no_output": ensemble(ONE) | {"@M_a/config.pbtxt": str(A["@M_a/config.pbtxt"]).split("output")[0], "@M_a/1/model.py": MODEL_PY},
    "scheduling_in_python": {"@M/config.pbtxt": PLAIN + "ensemble_scheduling { }", "@M/1/model.py": MODEL_PY},
}  # fmt: skip
INNER = [step("inner", "in=in", "out=out")]


def inner(**more: object) -> Files:
    return ensemble(ONE, name="@M_inner", **more) | A  # type: ignore[arg-type]


NESTED: dict[str, Files] = {
    "nested": ensemble(INNER) | inner(),
    "nested_type": ensemble(INNER, "in:INT32:2") | inner(),
    "nested_batch": ensemble(INNER) | inner(batch=4),
    "nested_broken": ensemble(INNER) | inner(outputs="out:FP32:3"),
    "nested_missing": ensemble(INNER) | ensemble(ONE, name="@M_inner"),
    "nested_no_version": ensemble(INNER) | inner(version=False),
    "nested_cycle": ensemble(INNER) | ensemble([step("a", "in=in", "out=out").replace("@M_a", "@M")], name="@M_inner"),
    "nested_three": ensemble([step("outer", "in=in", "out=out")]) | ensemble(INNER, name="@M_outer") | inner(),
    "nested_three_cycle": ensemble([step("outer", "in=in", "out=out")]) | ensemble(INNER, name="@M_outer")
    | ensemble([step("outer", "in=in", "out=out")], name="@M_inner"),
    "nested_and_member": ensemble([step("inner", "in=in", "out=mid"), step("a", "x=mid", "y=out")]) | inner(),
    "nested_decoupled": ensemble(INNER) | ensemble(ONE, name="@M_inner")
    | member("a", more="model_transaction_policy { decoupled: true }"),
}  # fmt: skip
