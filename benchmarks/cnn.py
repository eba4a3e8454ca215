"""A small CNN with seeded random weights: `python -m benchmarks.cnn FILE`, `image` (batch, 3, 96, 96) → 100 logits."""

from __future__ import annotations

import sys
import warnings

import torch
from torch import nn


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A convolution with its normalisation."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def main(path: str) -> None:
    """Write the file."""
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    sizes = ((3, 32, 2), (32, 64, 2), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1))
    model = nn.Sequential(
        *(block(*size) for size in sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 100)
    ).eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 96, 96),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    main(sys.argv[1])
