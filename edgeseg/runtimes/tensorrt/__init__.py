"""The `trt` and `trt-rtx` targets: TensorRT, and TensorRT for RTX."""
