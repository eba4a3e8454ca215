"""A convolutional classifier of scikit-learn's digits, trained here, as ONNX; samples with labels that it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from onnx import helper
from small_graphs import signature, write_graph

PORTS = signature(["image:float32:batch,1,8,8"], ["scores:float32:batch,10"])
TRAINED_ROWS = 1197


@dataclass(frozen=True)
class Digits:
    """`samples` holds 600 rows: `image` and `label`."""

    model: Path
    samples: Path


def write_digits(folder: Path) -> Digits:
    """`digits.onnx` and `digits.npz` in `folder`; trained once per process."""
    weights, images, labels = _trained()
    model = write_graph(folder / "digits.onnx", PORTS, _nodes(), weights)
    samples = folder / "digits.npz"
    np.savez(samples, image=images, label=labels)
    return Digits(model, samples)


def _nodes() -> list[object]:
    make = helper.make_node
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    return [
        make("Conv", ["image", "0.weight", "0.bias"], ["c0"], name="conv0", **conv),
        make("Relu", ["c0"], ["r0"], name="relu0"),
        make("Conv", ["r0", "2.weight", "2.bias"], ["c1"], name="conv1", **conv),
        make("Relu", ["c1"], ["r1"], name="relu1"),
        make("MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["p1", "5.weight", "5.bias"], ["c2"], name="conv2", **conv),
        make("Relu", ["c2"], ["r2"], name="relu2"),
        make("Flatten", ["r2"], ["flat"], name="flatten", axis=1),
        make("Gemm", ["flat", "8.weight", "8.bias"], ["h"], name="hidden", transB=1),
        make("Relu", ["h"], ["r3"], name="relu3"),
        make("Gemm", ["r3", "10.weight", "10.bias"], ["scores"], name="classes", transB=1),
    ]


@lru_cache(maxsize=1)
def _trained() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights, and the rows that were kept apart; seeded."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    images = (data.images[order, None] / 16).astype(np.float32)
    labels = data.target[order].astype(np.int64)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other take minutes where other tests run beside this one
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    inputs, targets = torch.from_numpy(images[:TRAINED_ROWS]), torch.from_numpy(labels[:TRAINED_ROWS])
    for _ in range(6):
        for rows in torch.randperm(TRAINED_ROWS).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
            optimiser.step()
    torch.set_num_threads(threads)
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    return weights, images[TRAINED_ROWS:], labels[TRAINED_ROWS:]
