"""ONNX → ONNX: reading, limits, ports, writing; one file each."""
