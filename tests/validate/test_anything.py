"""Any bytes give findings, never a traceback; and the same findings whichever libraries are installed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest
import tiny_models
from command_line import ROOT, environment
from corpus import Case, cases, write

from builder.errors import SpecError
from builder.fixing import plan_fixes
from builder.migration import migration_report
from builder.sarif import sarif_document
from builder.validate import completed_texts, validate_repository

CONFIGS, FILES = 60, 60
JUNK = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"{" * 500, b"input { " * 400, b"[" * 300, b'"', b"\\", b"\\x", b"08",
    b"-9223372036854775809", b"1e400", b"nan", b"9" * 400, "é𝒳\u202e".encode(), b"a" * 5000, b"TYPE_STRING", b"//",
    b"[type.googleapis.com/x.Y] { }", b"dims: 99", b"kind: 99", b"name: '../../..'",
)  # fmt: skip
LIBRARIES = (
    "torch", "tensorflow", "keras", "tf_keras", "tf2onnx", "onnxruntime", "openvino", "nncf", "tensorrt",
    "tensorrt_rtx", "transformers", "sklearn", "skl2onnx", "onnxslim", "onnxscript", "h5py", "pandas", "locust",
    "cuda", "safetensors", "joblib",
)  # fmt: skip
IR = """<net name="n" version="11"><layers>
<layer id="0" name="x" type="Parameter"><output><port id="0" precision="FP32" names="x"><dim>-1</dim><dim>4</dim></port></output></layer>
<layer id="1" name="y/sink" type="Result"><input><port id="0" precision="FP32"><dim>-1</dim><dim>4</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>
"""  # noqa: E501 - as OpenVINO writes it
CODE = "class M(Module):\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n    return x\n"


@pytest.fixture
def seed() -> random.Random:
    """Another one in each run; `FUZZ_SEED` repeats one."""
    number = os.environ.get("FUZZ_SEED", str(random.SystemRandom().randrange(10**6)))
    print(f"FUZZ_SEED={number}")
    return random.Random(number)


def mutated(data: bytes, chance: random.Random) -> bytes:
    text = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.randrange(12))
        text[start:end] = chance.choice((b"", chance.choice(JUNK), chance.randbytes(8), bytes(text[:end])))
    return bytes(text)


def judge_all(repository: Path) -> None:
    try:
        sarif_document(validate_repository(repository, "26.07"))
        list(completed_texts(repository, "26.07"))
        migration_report(repository, "23.06", "26.07")
        plan_fixes(repository, "26.07")
    except SpecError as error:
        assert error.message


def test_any_configuration(tmp_path: Path, seed: random.Random) -> None:
    for number in range(CONFIGS):
        case: Case = seed.choice([case for case in cases() if "@M/config.pbtxt" in case.files])
        write(case, tmp_path / str(number))
        config = tmp_path / str(number) / case.name / "config.pbtxt"
        config.write_bytes(mutated(config.read_bytes(), seed))
        judge_all(tmp_path / str(number))


def put(repository: Path, backend: str, file: str) -> Path:
    """A model of each kind whose file can be read."""
    path = repository / backend / "1" / file
    path.parent.mkdir(parents=True)
    head = 'platform: "pytorch_libtorch"' if backend == "pytorch" else f'backend: "{backend}"'
    batch = "" if backend == "openvino" else "max_batch_size: 8\n"
    dims = "[ -1, 4 ]" if backend == "openvino" else "[ 4 ]"
    names = ("x", "x") if backend == "openvino" else ("x", "y__0" if backend == "pytorch" else "y")
    outputs = "[ 3 ]" if backend == "onnxruntime" else dims
    (path.parents[1] / "config.pbtxt").write_text(
        f'{head}\n{batch}input {{ name: "{names[0]}" data_type: TYPE_FP32 dims: {dims} }}\n'
        f'output {{ name: "{names[1]}" data_type: TYPE_FP32 dims: {outputs} }}\n'
    )
    if backend == "onnxruntime":
        tiny_models.linear(path)
    elif backend == "openvino":
        path.write_text(IR)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", b"\x80\x02c__torch__\nM\nq\x00.")
            archive.writestr("m/constants.pkl", b"\x80\x02).")
            archive.writestr("m/code/__torch__.py", CODE)
    return path


KINDS = (("onnxruntime", "model.onnx"), ("openvino", "model.xml"), ("pytorch", "model.pt"))


@pytest.mark.parametrize(("backend", "file"), KINDS)
def test_the_files_are_good(tmp_path: Path, backend: str, file: str) -> None:
    put(tmp_path, backend, file)
    assert [item.message for item in validate_repository(tmp_path, "26.07") if item.severity == "error"] == []


@pytest.mark.parametrize(("backend", "file"), KINDS)
def test_any_model_file(tmp_path: Path, seed: random.Random, backend: str, file: str) -> None:
    path = put(tmp_path, backend, file)
    whole = path.read_bytes()
    for _ in range(FILES):
        path.write_bytes(seed.choice((mutated(whole, seed), whole[: seed.randrange(len(whole))], seed.randbytes(300))))
        judge_all(tmp_path)


def test_a_member_that_ends_before_its_size_is_a_finding(tmp_path: Path) -> None:
    """The directory at the archive's end is whole, and gives a member more bytes than the file has."""
    path = put(tmp_path, "pytorch", "model.pt")
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("m/code/__torch__.py").file_size.to_bytes(4, "little")
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    path.write_bytes(content[:directory] + content[directory:].replace(size, (10**8).to_bytes(4, "little")))
    (one,) = [item for item in validate_repository(tmp_path, "26.07") if item.severity == "error"]
    assert "model.pt cannot be read: it is cut off" in one.message


@pytest.mark.parametrize("dim", ["-9nan", "4abc", "9" * 5000, "²", "1.5"])
def test_a_dim_that_is_no_size_is_a_finding(tmp_path: Path, dim: str) -> None:
    path = put(tmp_path, "openvino", "model.xml")
    path.write_text(IR.replace("<dim>4</dim>", f"<dim>{dim}</dim>", 1), encoding="utf-8")
    judge_all(tmp_path)
    found = [item.message for item in validate_repository(tmp_path, "26.07") if item.severity == "error"]
    assert any("is no size" in message for message in found), found


@pytest.mark.parametrize("encoding", ["nosuch", "shift_jis", "utf-7", "idna", "hex"])
def test_an_ir_of_another_encoding_is_a_finding(tmp_path: Path, encoding: str) -> None:
    path = put(tmp_path, "openvino", "model.xml")
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?>{IR}', encoding="utf-8")
    found = [item.message for item in validate_repository(tmp_path, "26.07") if item.severity == "error"]
    assert any("encoding" in message for message in found), found


def test_weights_under_a_name_that_no_file_has_are_missing(tmp_path: Path) -> None:
    path = put(tmp_path, "onnxruntime", "model.onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w" * 300)
    path.write_bytes(model.SerializeToString())
    found = [item.message for item in validate_repository(tmp_path, "26.07") if item.severity == "error"]
    assert any("is not there" in message for message in found), found


@pytest.mark.parametrize("key", ["intra_op_thread_count", "execution_mode", "NUM_STREAMS", "INFERENCE_NUM_THREADS"])
def test_a_number_of_any_length_is_read(tmp_path: Path, key: str) -> None:
    """Python refuses to make an integer of more than 4,300 digits."""
    for backend, file in KINDS[:2]:
        config = put(tmp_path, backend, file).parents[1] / "config.pbtxt"
        value = f'parameters {{ key: "{key}" value {{ string_value: "{"9" * 5000}" }} }}\n'
        config.write_text(config.read_text(encoding="utf-8") + value, encoding="utf-8")
    judge_all(tmp_path)
    assert validate_repository(tmp_path, "26.07"), "such a parameter is never right"


BLOCKED = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LIBRARIES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
if len(sys.argv) > 2 and sys.argv[2] == "blocked":
    sys.meta_path.insert(0, Blocked())
from pathlib import Path
from builder.records import to_json
from builder.validate import validate_repository
found = [to_json(item) for item in validate_repository(Path(sys.argv[1]), "26.07", 0, 2)]
import json
print(json.dumps([found, sorted(set({LIBRARIES!r}) & set(sys.modules))]))
"""


def test_the_verdict_is_the_same_without_any_optional_library(tmp_path: Path) -> None:
    for backend, file in KINDS:
        put(tmp_path, backend, file)
    put(tmp_path / "more", "onnxruntime", "model.onnx")
    model = onnx.load(tmp_path / "onnxruntime" / "1" / "model.onnx")
    model.graph.output[0].name = "other"
    onnx.save(model, tmp_path / "onnxruntime" / "1" / "model.onnx")
    for name, head, file in (
        ("plan", 'platform: "tensorrt_plan"', "model.plan"), ("saved", 'platform: "tensorflow_savedmodel"', "x"),
        ("code", 'backend: "python"', "model.py"),
    ):  # fmt: skip
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / file).write_text("class TritonPythonModel:\n    pass\n")
        (tmp_path / name / "config.pbtxt").write_text(f"{head}\n")
    results = [_judged_apart(tmp_path, word) for word in ("all", "blocked")]
    assert results[0] == results[1]
    found, imported = results[0]
    assert imported == []
    assert {item["model"] for item in found} >= {"onnxruntime", "plan", "saved"}


def _judged_apart(repository: Path, word: str) -> list[list[dict[str, str]]]:
    command = [sys.executable, "-c", BLOCKED, str(repository), word]
    ran = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    found: list[list[dict[str, str]]] = json.loads(ran.stdout)
    return found
