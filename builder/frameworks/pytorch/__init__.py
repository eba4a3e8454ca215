"""What the PyTorch source formats share: files and weights, the callable, the network, the exporters."""
