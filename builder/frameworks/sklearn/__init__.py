"""scikit-learn estimators: the pickle, what goes in and out, the way to ONNX."""
