"""Warm-up requests and label files."""

# ruff: noqa: E501 - a case is a line

from corpus import INPUT, PLAIN, Case, configs, model, whole

X = "data_type: TYPE_FP32 dims: [ 2 ]"


def warm(value: str, more: str = 'name: "w" batch_size: 1', key: str = "x") -> str:
    return f'model_warmup [ {{ {more} inputs {{ key: "{key}" value {{ {value} }} }} }} ]'


def cases() -> list[Case]:
    file = warm(f'{X} input_data_file: "a"')
    label = PLAIN.replace('name: "y"', 'name: "y" label_filename: "labels.txt"')
    files: dict[str, tuple[str, str, bytes]] = {
        "file": (PLAIN + file, "@M/warmup/a", bytes(8)),
        "file_short": (PLAIN + file, "@M/warmup/a", bytes(4)),
        "file_long": (PLAIN + file, "@M/warmup/a", bytes(64)),
        "file_empty": (PLAIN + file, "@M/warmup/a", b""),
        "file_elsewhere": (PLAIN + file, "@M/a", bytes(8)),
        "file_in_version": (PLAIN + file, "@M/1/a", bytes(8)),
        "file_folder": (PLAIN + file, "@M/warmup/a/b", bytes(8)),
        "file_dots": (PLAIN + file.replace('"a"', '"../a"'), "@M/a", bytes(8)),
        "file_dots_outside": (PLAIN + file.replace('"a"', '"../../@M.bin"'), "@M.bin", bytes(8)),
        "file_deeper": (PLAIN + file.replace('"a"', '"deep/a"'), "@M/warmup/deep/a", bytes(8)),
        "file_batch_two": (PLAIN + file.replace("batch_size: 1", "batch_size: 2"), "@M/warmup/a", bytes(8)),
        "string_file": (STRINGS + warm('data_type: TYPE_STRING dims: [ 1 ] input_data_file: "a"'), "@M/warmup/a", b"\2\0\0\0ab"),
        "string_file_short": (STRINGS + warm('data_type: TYPE_STRING dims: [ 1 ] input_data_file: "a"'), "@M/warmup/a", b"\2\0\0\0a"),
        "string_file_plain": (STRINGS + warm('data_type: TYPE_STRING dims: [ 1 ] input_data_file: "a"'), "@M/warmup/a", b"abc"),
        "label": (label, "@M/labels.txt", b"a\nb\n"),
        "label_empty": (label, "@M/labels.txt", b""),
        "label_few": (label, "@M/labels.txt", b"a"),
        "label_missing": (label, "@M/other.txt", b"a\nb\n"),
        "label_in_version": (label, "@M/1/labels.txt", b"a\nb\n"),
        "label_folder": (label, "@M/labels.txt/a", b"a"),
        "label_deeper": (label.replace("labels.txt", "a/labels.txt"), "@M/a/labels.txt", b"a"),
        "label_dots": (label.replace("labels.txt", "../@M.txt"), "@M.txt", b"a"),
        "label_dots_inside": (label.replace("labels.txt", "a/../labels.txt"), "@M/labels.txt", b"a"),
        "label_binary": (label, "@M/labels.txt", bytes(range(256))),
    }  # fmt: skip
    return [
        *configs("warmup", TABLE),
        *whole("warmup", WHOLE),
        *(Case(f"warmup_{name}", model(text, more={path: data})) for name, (text, path, data) in files.items()),
    ]


STRINGS = PLAIN.replace(INPUT, 'input [ { name: "x" data_type: TYPE_STRING dims: [ 1 ] } ]')
TABLE = {
    "zero": warm(f"{X} zero_data: true"),
    "random": warm(f"{X} random_data: true"),
    "zero_false": warm(f"{X} zero_data: false"),
    "random_false": warm(f"{X} random_data: false"),
    "no_data": warm(X),
    "no_name": warm(f"{X} zero_data: true", "batch_size: 1"),
    "batch_zero": warm(f"{X} zero_data: true", 'name: "w" batch_size: 0'),
    "batch_none": warm(f"{X} zero_data: true", 'name: "w"'),
    "batch_zero_wrong_input": warm(f"{X} zero_data: true", 'name: "w"', "z"),
    "batch_eight": warm(f"{X} zero_data: true", 'name: "w" batch_size: 8'),
    "batch_above": warm(f"{X} zero_data: true", 'name: "w" batch_size: 9'),
    "batch_negative": warm(f"{X} zero_data: true", 'name: "w" batch_size: -1'),
    "count": warm(f"{X} zero_data: true", 'name: "w" batch_size: 1 count: 3'),
    "wrong_input": warm(f"{X} zero_data: true", key="z"),
    "output_as_input": warm(f"{X} zero_data: true", key="y"),
    "no_inputs": 'model_warmup [ { name: "w" batch_size: 1 } ]',
    "empty": "model_warmup [ { } ]",
    "type": warm("data_type: TYPE_INT32 dims: [ 2 ] zero_data: true"),
    "no_type": warm("dims: [ 2 ] zero_data: true"),
    "dims": warm("data_type: TYPE_FP32 dims: [ 3 ] zero_data: true"),
    "rank": warm("data_type: TYPE_FP32 dims: [ 1, 2 ] zero_data: true"),
    "no_dims": warm("data_type: TYPE_FP32 zero_data: true"),
    "dynamic": warm("data_type: TYPE_FP32 dims: [ -1 ] zero_data: true"),
    "dynamic_two": warm("data_type: TYPE_FP32 dims: [ -2 ] zero_data: true"),
    "zero_dim": warm("data_type: TYPE_FP32 dims: [ 0 ] zero_data: true"),
    "two_data": warm(f"{X} zero_data: true random_data: true"),
    "file_missing": warm(f'{X} input_data_file: "a"'),
    "file_no_name": warm(f'{X} input_data_file: ""'),
    "file_missing_batch_zero": warm(f'{X} input_data_file: "a"', 'name: "w"'),
    "twice": warm(f"{X} zero_data: true") + "\n" + warm(f"{X} zero_data: true"),
    "one_bad_of_two": warm(f"{X} zero_data: true") + "\n" + warm(f"{X} zero_data: true", key="z"),
    "dynamic_batching": "dynamic_batching { }\n" + warm(f"{X} zero_data: true"),
    "sequence": "sequence_batching { }\n" + warm(f"{X} zero_data: true"),
    "two_instances": "instance_group { count: 2 kind: KIND_CPU }\n" + warm(f"{X} zero_data: true"),
}
TWO = PLAIN.replace(
    INPUT, 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }, { name: "z" data_type: TYPE_FP32 dims: [ 2 ] } ]'
)
BOTH = f'model_warmup [ {{ name: "w" batch_size: 1 inputs {{ key: "x" value {{ {X} zero_data: true }} }} inputs {{ key: "z" value {{ {X} zero_data: true }} }} }} ]'
WHOLE = {
    "extra_input": PLAIN + BOTH,
    "both_inputs": TWO + BOTH,
    "unbatched": PLAIN.replace("8", "0") + warm(f"{X} zero_data: true"),
    "unbatched_batch_two": PLAIN.replace("8", "0") + warm(f"{X} zero_data: true", 'name: "w" batch_size: 2'),
    "unbatched_batch_none": PLAIN.replace("8", "0") + warm(f"{X} zero_data: true", 'name: "w"'),
    "one_input_missing": TWO + warm(f"{X} zero_data: true"),
    "optional_missing": TWO.replace('"z"', '"z" optional: true') + warm(f"{X} zero_data: true"),
    "dynamic_model": PLAIN.replace("dims: [ 2 ]", "dims: [ -1 ]") + warm(f"{X} zero_data: true"),
    "reshape": PLAIN.replace("dims: [ 2 ]", "dims: [ 2 ] reshape { shape: [ 2, 1 ] }") + warm(f"{X} zero_data: true"),
    "reshape_wrong": PLAIN.replace("dims: [ 2 ]", "dims: [ 2 ] reshape { shape: [ 2, 1 ] }")
    + warm("data_type: TYPE_FP32 dims: [ 2, 1 ] zero_data: true"),
    "string_zero": STRINGS + warm("data_type: TYPE_STRING dims: [ 1 ] zero_data: true"),
    "string_random": STRINGS + warm("data_type: TYPE_STRING dims: [ 1 ] random_data: true"),
    "ragged": PLAIN.replace("dims: [ 2 ]", "dims: [ -1 ]").replace('"x"', '"x" allow_ragged_batch: true')
    + warm(f"{X} zero_data: true", 'name: "w" batch_size: 4'),
    "bf16": PLAIN.replace("TYPE_FP32", "TYPE_BF16") + warm("data_type: TYPE_BF16 dims: [ 2 ] zero_data: true"),
}
