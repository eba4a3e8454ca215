"""TensorRT: parse, profile, build, prove and run an engine; its stand-in without a GPU is `tensorrt-rtx`."""
