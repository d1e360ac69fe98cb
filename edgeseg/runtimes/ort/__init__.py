"""The `ort` target: ONNX Runtime."""
