"""Floats in a narrower type, without a finite value that becomes infinite unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


def cast_floats(array: Array, dtype: str) -> tuple[Array, float]:
    """The array as `float16`, `bfloat16`, `float32`; and the largest magnitude that was lost (0.0: none was)."""
    import numpy as np

    target: object = dtype
    if dtype == "bfloat16":
        import ml_dtypes

        target = ml_dtypes.bfloat16
    with np.errstate(over="ignore"):
        cast: Array = array.astype(target)  # type: ignore[call-overload]
    lost = np.isfinite(array) & ~np.isfinite(cast)
    return cast, float(np.abs(array[lost]).max(initial=0.0))
