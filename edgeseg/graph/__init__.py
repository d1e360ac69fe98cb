"""The ONNX toolkit: read, change, run and cost a graph; affine maps, channel order, Q/DQ, node roles."""
