"""Inputs and outputs: types, dims, reshape, formats, flags, batch inputs."""

from corpus import INPUT, OUTPUT, PLAIN, Case, configs, whole


def io(text: str, *, batch: int = 8, side: str = "input") -> str:
    other = OUTPUT if side == "input" else INPUT
    return f'backend: "python"\nmax_batch_size: {batch}\n{side} [ {{ {text} }} ]\n{other}\n'


X = 'name: "x" data_type: TYPE_FP32 dims: '


def cases() -> list[Case]:
    found = {name: io(text) for name, text in INPUTS.items()}
    found |= {f"out_{name}": io(text.replace('"x"', '"y"'), side="output") for name, text in OUTPUTS.items()}
    found |= {f"unbatched_{name}": io(text, batch=0) for name, text in INPUTS.items() if "reshape" in text}
    found |= {f"type_{name.lower()}": io(f'name: "x" data_type: TYPE_{name} dims: [ 1 ]') for name in TYPES}
    return [*whole("tensors", {**found, **WHOLE}), *configs("tensors", AFTER)]


TYPES = ("BOOL", "UINT8", "UINT64", "INT64", "FP16", "FP64", "STRING", "BF16", "INVALID")
INPUTS = {
    "plain": X + "[ 2 ]",
    "no_name": "data_type: TYPE_FP32 dims: [ 2 ]",
    "no_type": 'name: "x" dims: [ 2 ]',
    "no_dims": 'name: "x" data_type: TYPE_FP32',
    "empty": "",
    "zero": X + "[ 0 ]",
    "zero_inside": X + "[ 3, 0, 2 ]",
    "minus_one": X + "[ -1 ]",
    "minus_two": X + "[ -2 ]",
    "all_dynamic": X + "[ -1, -1, -1 ]",
    "many": X + "[ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 ]",
    "huge": X + "[ 9223372036854775807 ]",
    "overflow": X + "[ 4294967296, 4294967296 ]",
    "reshape_empty": X + "[ 1 ] reshape { shape: [ ] }",
    "reshape_empty_block": X + "[ 1 ] reshape { }",
    "reshape_empty_ones": X + "[ 1, 1 ] reshape { shape: [ ] }",
    "reshape_empty_two": X + "[ 2 ] reshape { shape: [ ] }",
    "reshape_empty_dynamic": X + "[ -1 ] reshape { shape: [ ] }",
    "reshape_same": X + "[ 6 ] reshape { shape: [ 2, 3 ] }",
    "reshape_other": X + "[ 6 ] reshape { shape: [ 2, 2 ] }",
    "reshape_zero": X + "[ 6 ] reshape { shape: [ 0 ] }",
    "reshape_negative": X + "[ 6 ] reshape { shape: [ -2 ] }",
    "reshape_to_dynamic": X + "[ 6 ] reshape { shape: [ -1 ] }",
    "reshape_from_dynamic": X + "[ -1 ] reshape { shape: [ 6 ] }",
    "reshape_dynamic": X + "[ 2, 4, -1, 6 ] reshape { shape: [ 8, -1, 1, 6 ] }",
    "reshape_dynamic_moved": X + "[ 2, -1, 4 ] reshape { shape: [ 8, -1 ] }",
    "reshape_dynamic_more": X + "[ 2, -1 ] reshape { shape: [ 2, -1, -1 ] }",
    "reshape_dynamic_trailing_one": X + "[ -1 ] reshape { shape: [ -1, 1 ] }",
    "reshape_dynamic_leading_one": X + "[ -1 ] reshape { shape: [ 1, -1 ] }",
    "reshape_ones": X + "[ 1 ] reshape { shape: [ 1, 1, 1 ] }",
    "nhwc": X + "[ 4, 4, 3 ] format: FORMAT_NHWC",
    "nchw": X + "[ 3, 4, 4 ] format: FORMAT_NCHW",
    "nhwc_two": X + "[ 4, 4 ] format: FORMAT_NHWC",
    "nchw_four": X + "[ 1, 3, 4, 4 ] format: FORMAT_NCHW",
    "nchw_unbatched_four": X + "[ -1, 3, 4, 4 ] format: FORMAT_NCHW",
    "format_none": X + "[ 4 ] format: FORMAT_NONE",
    "shape_tensor": X + "[ 2 ] is_shape_tensor: true",
    "shape_tensor_false": X + "[ 2 ] is_shape_tensor: false",
    "non_linear": X + "[ 2, 2, 2 ] is_non_linear_format_io: true",
    "optional": X + "[ 2 ] optional: true",
    "ragged": X + "[ -1 ] allow_ragged_batch: true",
    "ragged_fixed": X + "[ 2 ] allow_ragged_batch: true",
    "label_on_input": X + '[ 2 ] label_filename: "labels.txt"',
}
OUTPUTS = {
    "no_name": "data_type: TYPE_FP32 dims: [ 2 ]",
    "no_type": 'name: "x" dims: [ 2 ]',
    "no_dims": 'name: "x" data_type: TYPE_FP32',
    "zero": X + "[ 0 ]",
    "minus_two": X + "[ -2 ]",
    "reshape_empty": X + "[ 1 ] reshape { shape: [ ] }",
    "reshape_other": X + "[ 6 ] reshape { shape: [ 2, 2 ] }",
    "reshape_same": X + "[ 6 ] reshape { shape: [ 3, 2 ] }",
    "shape_tensor": X + "[ 2 ] is_shape_tensor: true",
    "non_linear": X + "[ 2, 2, 2 ] is_non_linear_format_io: true",
    "format": X + "[ 2, 2, 2 ] format: FORMAT_NCHW",
    "optional": X + "[ 2 ] optional: true",
    "ragged": X + "[ 2 ] allow_ragged_batch: true",
}
SAME = OUTPUT.replace('"y"', '"x"')
WHOLE = {
    "no_input": f'backend: "python"\nmax_batch_size: 8\n{OUTPUT}',
    "no_output": f'backend: "python"\nmax_batch_size: 8\n{INPUT}',
    "neither": 'backend: "python"\n',
    "negative_batch": PLAIN.replace("8", "-1"),
    "two_inputs_one_name": f'backend: "python"\n{INPUT}\n{INPUT}\n{OUTPUT}',
    "two_outputs_one_name": f'backend: "python"\n{INPUT}\n{OUTPUT}\n{OUTPUT}',
    "input_named_as_output": f'backend: "python"\n{INPUT}\n{SAME}',
    "huge_batch": PLAIN.replace("8", "2147483647"),
    "slash_in_name": PLAIN.replace('"x"', '"a/b:0"'),
    "space_in_name": PLAIN.replace('"x"', '"a b"'),
}
BATCH = 'batch_input [ { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 source_input: "x" } ]'
SCATTER = 'batch_output [ { target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" } ]'
AFTER = {
    "batch_input": BATCH,
    "batch_input_int": BATCH.replace("FP32", "INT32"),
    "batch_input_type": BATCH.replace("FP32", "INT64"),
    "batch_input_no_type": BATCH.replace("data_type: TYPE_FP32", ""),
    "batch_input_no_kind": BATCH.replace("kind: BATCH_ELEMENT_COUNT", ""),
    "batch_input_unknown": BATCH.replace('"x"', '"z"'),
    "batch_input_output": BATCH.replace('"x"', '"y"'),
    "batch_input_no_source": BATCH.replace('source_input: "x"', ""),
    "batch_input_two_sources": BATCH.replace('source_input: "x"', 'source_input: [ "x", "x" ]'),
    "batch_input_no_target": BATCH.replace('target_name: "n"', ""),
    "batch_input_two_targets": BATCH.replace('target_name: "n"', 'target_name: [ "n", "m" ]'),
    "batch_input_kind_unknown": BATCH.replace("BATCH_ELEMENT_COUNT", "BATCH_SIZE"),
    "batch_input_item_shape": BATCH.replace("ELEMENT_COUNT", "ITEM_SHAPE"),
    "batch_input_flatten": BATCH.replace("ELEMENT_COUNT", "ITEM_SHAPE_FLATTEN"),
    "batch_input_zero": BATCH.replace("ELEMENT_COUNT", "ACCUMULATED_ELEMENT_COUNT_WITH_ZERO"),
    "batch_input_max": BATCH.replace("ELEMENT_COUNT", "MAX_ELEMENT_COUNT_AS_SHAPE"),
    "batch_input_dynamic": BATCH + "\ndynamic_batching { }",
    "batch_output": SCATTER,
    "batch_output_target": SCATTER.replace('"y"', '"z"'),
    "batch_output_source": SCATTER.replace('"x"', '"z"'),
    "batch_output_no_source": SCATTER.replace('source_input: "x"', ""),
    "batch_output_twice": SCATTER.replace('target_name: "y"', 'target_name: [ "y", "y" ]'),
    "batch_output_two_entries": SCATTER + "\n" + SCATTER,
    "batch_output_no_target": SCATTER.replace('target_name: "y"', ""),
}
