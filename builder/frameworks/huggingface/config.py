"""`config.json` → architecture and inputs; no weights are read and no code of the directory runs."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from builder.errors import MachineError, SpecError
from builder.onnx_tools.ports import BATCH
from builder.onnx_tools.reading import short
from builder.tensors import Dim, Tensor

CONFIG: Final = "config.json"
WEIGHTS: Final = ("*.safetensors", "pytorch_model*.bin")
EXAMPLE: Final = "inputs: [{name: input_ids, dtype: int64, shape: [batch, sequence]}]"
MASKS: Final = ("attention_mask", "decoder_attention_mask")


def read_config(path: Path) -> dict[str, Any] | None:
    """The directory's `config.json` where it is that of a transformers model; None where it is not."""
    file = path / CONFIG
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None
    if not isinstance(config, dict) or not {"model_type", "architectures"} & config.keys():
        return None
    return config


def import_transformers() -> Any:  # noqa: ANN401 - the module transformers
    """transformers, told to stay off the network.

    Raises:
        MachineError: it is not installed or does not load.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import transformers
    except (ImportError, OSError) as error:
        raise MachineError(
            f"this model needs transformers, which cannot be imported: {short(error)}",
            remedy="pip install 'build-repo[huggingface]'",
        ) from error
    loaded: Any = transformers
    loaded.utils.logging.set_verbosity_error()
    loaded.utils.logging.disable_progress_bar()
    return loaded


def find_architecture(path: Path) -> tuple[Any, Any]:
    """The model's class and its configuration object.

    Raises:
        SpecError: the model brings code of its own, or transformers does not know it.
    """
    transformers = import_transformers()
    raw = read_config(path) or {}
    kind = str(raw.get("model_type", ""))
    if kind not in transformers.CONFIG_MAPPING:
        raise _unknown(path, kind, raw, transformers.__version__)
    try:
        config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise SpecError(f"{path.name}/{CONFIG} cannot be read: {short(error)}") from error
    for name in raw.get("architectures") or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found, config
        if raw.get("auto_map"):
            raise _unknown(path, name, raw, transformers.__version__)
    try:
        return transformers.MODEL_MAPPING[type(config)], config
    except KeyError:
        raise _unknown(path, kind, raw, transformers.__version__) from None


def _unknown(path: Path, what: str, raw: Mapping[str, Any], version: str) -> SpecError:
    if raw.get("auto_map"):
        return SpecError(
            f"{path.name} brings Python code of its own for {what!r} (auto_map in {CONFIG}): running it needs "
            "trust_remote_code, which build-repo never sets",
            remedy="export it to ONNX or torch.export yourself, where you trust the code, and give that file",
        )
    return SpecError(
        f"{path.name}: transformers {version} does not know the model type {what!r}",
        remedy="install the version of transformers that the model names (transformers_version in config.json)",
    )


def forward_names(architecture: Any) -> tuple[str, ...]:  # noqa: ANN401 - a model class
    """Names that `forward` takes."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(architecture.forward).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds and parameter.name != "self")


def own_inputs(architecture: Any, config: Any) -> tuple[Tensor, ...]:  # noqa: ANN401
    """Inputs that the configuration tells; none where it does not."""
    names = forward_names(architecture)
    main = getattr(architecture, "main_input_name", "input_ids")
    found: list[Tensor] = []
    if "input_ids" in names and main in ("input_ids", "pixel_values"):
        found += _text(names, config, "")
    if "pixel_values" in names:
        found.append(_image(config))
    if main == "input_values":
        found.append(Tensor(main, "float32", (BATCH, "samples")))
    if found and getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        found.append(Tensor("decoder_input_ids", "int64", (BATCH, "decoder_sequence")))
    return tuple(found) if main in {tensor.name for tensor in found} else ()


def _text(names: tuple[str, ...], config: Any, prefix: str) -> list[Tensor]:  # noqa: ANN401
    types = int(getattr(config, "type_vocab_size", 0) or 0)
    wanted = ("input_ids", "attention_mask", *(("token_type_ids",) if types > 1 else ()))
    return [Tensor(prefix + name, "int64", (BATCH, "sequence")) for name in wanted if name in names]


def _image(config: Any) -> Tensor:  # noqa: ANN401
    vision = getattr(config, "vision_config", None) or config
    size = getattr(vision, "image_size", None)
    shape: tuple[Dim, ...] = ("height", "width")
    if isinstance(size, int):
        shape = (size, size)
    elif isinstance(size, (list, tuple)) and size:
        shape = (int(size[0]), int(size[-1]))
    elif isinstance(size, dict) and {"height", "width"} <= size.keys():
        shape = (int(size["height"]), int(size["width"]))
    return Tensor("pixel_values", "float32", (BATCH, int(getattr(vision, "num_channels", 3)), *shape))
