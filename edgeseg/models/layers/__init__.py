"""Blocks that serve several families, one idea per file."""
