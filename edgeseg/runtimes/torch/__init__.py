"""The `torch` target: plain PyTorch, the reference the others are compared with."""
