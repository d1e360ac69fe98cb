"""Convolution, BN and ReLU in a Sequential: published keys are 0, 1 and 2."""

from __future__ import annotations

from torch import nn

__all__ = ["conv_bn", "conv_bn_relu"]


def conv_bn(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool = False) -> nn.Sequential:
    """Build a "same" convolution and BN."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool = False
) -> nn.Sequential:
    """Build a "same" convolution, BN and ReLU."""
    return nn.Sequential(*conv_bn(in_channels, out_channels, kernel, stride=stride, bias=bias), nn.ReLU())
