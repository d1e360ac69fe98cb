"""The `openvino` target."""
