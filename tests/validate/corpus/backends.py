"""Words of known backends before any model file is opened: what the core completes and refuses."""

from corpus import INPUT, OUTPUT, Case

IO = f"max_batch_size: 8\n{INPUT}\n{OUTPUT}\n"


def cases() -> list[Case]:
    return [
        Case(f"backends_{name}", {"@M/config.pbtxt": text, f"@M/1/{file}": "x"}) for name, (text, file) in TABLE.items()
    ]


TABLE = {
    "onnx_garbage": (f'backend: "onnxruntime"\n{IO}', "model.onnx"),
    "onnx_platform_garbage": (f'platform: "onnxruntime_onnx"\n{IO}', "model.onnx"),
    "onnx_by_file": (IO, "model.onnx"),
    "onnx_missing": (f'backend: "onnxruntime"\n{IO}', "net.onnx"),
    "tensorrt_onnx_pair": (f'backend: "tensorrt"\nplatform: "onnxruntime_onnx"\n{IO}', "model.plan"),
    "openvino_garbage": (f'backend: "openvino"\n{IO}', "model.xml"),
    "openvino_platform": (f'platform: "openvino"\n{IO}', "model.xml"),
    "torch_garbage": (f'platform: "pytorch_libtorch"\n{IO}', "model.pt"),
    "nothing_by_file": (IO, "model.h5"),
    "savedmodel": (IO, "model.savedmodel/saved_model.pb"),
    "graphdef": (IO, "model.graphdef"),
    "dali": (f'backend: "dali"\n{IO}', "model.dali"),
    "unknown": (f'backend: "mine"\n{IO}', "model.mine"),
}
