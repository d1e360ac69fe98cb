"""STDCHead: what STDC learns detail with, in mmsegmentation's form; it serves training only.

Fan et al., "Rethinking BiSeNet For Real-time Semantic Segmentation", CVPR 2021, arXiv 2104.13188. mmsegmentation's is
third-party. The head that STDC predicts with is `edgeseg.models.heads.fcn.FCNHead`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from edgeseg.models.heads.fcn import FCNHead
from edgeseg.models.heads.registry import register_head

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from edgeseg.models.heads.fcn import FCNOptions

__all__ = ["STDCHead"]


@register_head("stdc")
class STDCHead(FCNHead):
    """`FCNHead` with the two constants that turn labels into boundaries, which published state dicts hold.

    Args:
        boundary_threshold: From which a pixel counts as boundary, in training.
        options: As `FCNHead`.
    """

    def __init__(self, *, boundary_threshold: float = 0.1, **options: Unpack[FCNOptions]) -> None:
        super().__init__(**options)
        self.boundary_threshold = boundary_threshold
        laplacian = torch.full((1, 1, 3, 3), -1.0)
        laplacian[..., 1, 1] = 8.0
        self.register_buffer("laplacian_kernel", laplacian)
        weights = torch.tensor([0.6, 0.3, 0.1]).reshape(1, 3, 1, 1)
        self.fusion_kernel = nn.Parameter(weights, requires_grad=False)
