"""Scores of classes → the best of them, by name. A step of build-repo; it needs numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TopK:
    """The `k` largest of each row, the largest first; equal ones in their order."""

    def __init__(self, *, k: int = 5, softmax: bool = True, labels: str | None = None) -> None:
        """What comes out.

        Args:
            k: so many of each row.
            softmax: make probabilities of logits first; False leaves the numbers as they are.
            labels: the path of a file with one name a line; without it there is no output `label`.
        """
        if k < 1:
            msg = f"k is {k}; it is at least 1"
            raise ValueError(msg)
        self.k, self.softmax, self.labels = k, softmax, None if labels is None else _read(labels)
        if self.labels is not None and len(self.labels) < k:
            msg = f"k is {k}, and the file of labels has {len(self.labels)} lines"
            raise ValueError(msg)

    def __call__(self, logits: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        """`(batch, classes)` → `label` (with labels), `score` and `index`, each `(batch, k)`.

        Raises:
            ValueError: there are fewer classes than `k`, or another number than labels.
        """
        import numpy as np

        classes = logits.shape[1]
        if classes < self.k or (self.labels is not None and len(self.labels) != classes):
            msg = f"{classes} classes do not fit k {self.k}"
            raise ValueError(msg if self.labels is None else f"{msg} and {len(self.labels)} labels")
        scores = logits.astype(np.float32)
        index = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]
        if self.softmax:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        best: dict[str, NDArray[np.generic]] = {
            "score": np.take_along_axis(scores, index, axis=1),
            "index": index.astype(np.int64),
        }
        return best if self.labels is None else {"label": self.labels[index], **best}


def _read(path: str) -> NDArray[np.object_]:
    import numpy as np

    with open(path, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    names = np.empty(len(lines), dtype=object)
    names[:] = lines
    return names
