"""A folder of files as samples: each file is one row of the one input that takes strings, such as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import SpecError
from builder.samples.making import batch_axes
from builder.tensors import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_folder(path: Path, inputs: Sequence[Tensor]) -> dict[str, NDArray[np.generic]]:
    """The files' bytes in the order of their names; hidden files and folders are left out.

    Raises:
        SpecError: the folder is empty, or the model takes something else than one string a row.
    """
    import numpy as np

    tensor = inputs[0]
    row = tensor.shape[1:] if batch_axes(inputs) else tensor.shape
    if len(inputs) != 1 or tensor.dtype != "string" or any(dim != 1 for dim in row):
        shown = ", ".join(item.describe() for item in inputs)
        raise SpecError(
            f"samples {path.name} is a folder, for a model with one input of one string a row; this one has {shown}",
            remedy="write an .npz with one array for each input",
        )
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise SpecError(f"samples {path.name} holds no files", remedy="put files into it, each is one row")
    rows = np.empty((len(files), *(1 for _ in row)), dtype=object)
    rows.reshape(-1)[:] = [file.read_bytes() for file in files]
    return {tensor.name: rows}
