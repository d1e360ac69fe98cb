"""An engine for edgeseg in a package of its own: onnx's reference evaluator, slow and plain."""
