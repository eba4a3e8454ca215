"""ONNX Runtime: sessions in this process, and the same choices in Triton's words."""
