"""A transformers model behind positional tensors, its answer without caches and hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import SpecError
from builder.frameworks.huggingface.config import MASKS, import_transformers
from builder.frameworks.pytorch.network import TorchNetwork
from builder.frameworks.pytorch.weights import import_torch
from builder.onnx_tools.reading import short
from builder.tensors import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

SHOWN: Final = 5
OFF: Final = ("use_cache", "output_hidden_states", "output_attentions")


def open_model(path: Path, architecture: Any, config: Any) -> Any:  # noqa: ANN401 - a transformers model
    """The model with its weights in float32 and attention that exporters can read.

    Raises:
        SpecError: damaged, or weights that are not in the files.
    """
    import_transformers()
    torch = import_torch()
    try:
        model, info = architecture.from_pretrained(
            str(path),
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:
        raise SpecError(
            f"{path.name}: transformers cannot load {architecture.__name__}: {type(error).__name__}: {short(error)}",
            remedy="copy the whole directory again: config.json and all files of weights",
        ) from error
    missing = sorted(str(name) for name in (*info["missing_keys"], *info.get("mismatched_keys", ())))
    if missing:
        more = " …" if len(missing) > SHOWN else ""
        raise SpecError(
            f"{path.name} does not hold all weights of {architecture.__name__}: {len(missing)} would be random: "
            f"{', '.join(missing[:SHOWN])}{more}",
            remedy="correct architectures in config.json, or save the trained model with save_pretrained()",
        )
    return model


class HuggingFaceModel(TorchNetwork):
    """Called with keywords; masks hold 0 and 1 only."""

    def run(self, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        """The model's own answer."""
        for name in MASKS:
            # Without this, random samples would be masks of large numbers, which mask nothing.
            if name in inputs and inputs[name].dtype.kind in "iu" and inputs[name].size and inputs[name].max() > 1:
                raise ValueError(f"{name} holds 0 and 1 only")
        return super().run(inputs)


def wrapped(model: Any, inputs: Sequence[Tensor]) -> Any:  # noqa: ANN401 - a torch.nn.Module
    """The model with positional arguments and a dict of tensors as answer."""
    torch = import_torch()
    names = [tensor.name for tensor in inputs]
    for word in OFF:
        if hasattr(model.config, word):
            setattr(model.config, word, False)

    class Served(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> dict[str, Any]:  # noqa: ANN401
            answer = self.model(**dict(zip(names, tensors, strict=True)), return_dict=True)
            return {key: value for key, value in answer.items() if isinstance(value, torch.Tensor)}

    return Served()
