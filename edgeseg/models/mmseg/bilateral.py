"""BiSeNet V1 and V2 and STDC as mmsegmentation's backbones: the graphs of the zoo under mmsegmentation's keys.

Against CoinCheung's BiSeNets: in V1 a ReLU comes before the fusion's sigmoid; in V2 the aggregation resizes bilinearly
and its 1x1s have a bias. STDC is the authors' graph. Equal to mmsegmentation 1.2.2, third-party; papers in
`edgeseg.models.families.bisenetv1`, `edgeseg.models.families.bisenetv2` and `edgeseg.models.families.stdc`.
"""

from __future__ import annotations

from functools import partial

from edgeseg.models.backbones.registry import register_backbone
from edgeseg.models.backbones.stdc import MMSEG, STDC1_BLOCKS, STDC2_BLOCKS
from edgeseg.models.families.bisenetv1 import BiSeNetV1Trunk
from edgeseg.models.families.bisenetv2 import BiSeNetV2Trunk
from edgeseg.models.families.stdc import STDCTrunk
from edgeseg.models.layers.keys import Rule, publish_keys

__all__ = ["bisenetv1", "bisenetv2", "stdc"]

_REFINEMENT: tuple[Rule, ...] = (
    (r"(arm\d+)\.conv\.", r"\1.conv_layer."),
    (r"(arm\d+)\.conv_atten\.", r"\1.atten_conv_layer.1.conv."),
    (r"(arm\d+)\.bn_atten\.", r"\1.atten_conv_layer.1.bn."),
)
_V1_KEYS: tuple[Rule, ...] = (
    *_REFINEMENT,
    (r"^cp\.resnet\.", "context_path.backbone."),
    (r"^cp\.conv_avg\.", "context_path.gap_conv.1."),
    (r"^cp\.", "context_path."),
    (r"^sp\.conv_out\.", "spatial_path.layer4."),
    (r"^sp\.conv", "spatial_path.layer"),
    (r"^ffm\.(conv|bn)\.", r"ffm.conv_atten.0.\1."),
    (r"^ffm\.convblk\.", "ffm.conv1."),
)
_STDC_KEYS: tuple[Rule, ...] = (
    *_REFINEMENT,
    (r"^cp\.arm32\.", "arms.0."),
    (r"^cp\.arm16\.", "arms.1."),
    (r"^cp\.conv_head32\.", "convs.0."),
    (r"^cp\.conv_head16\.", "convs.1."),
    (r"^cp\.", ""),
    (r"^ffm\.conv([12])\.", r"ffm.attention.\1.conv."),
    (r"^ffm\.convblk\.", "ffm.conv0."),
)


def _conv_then_bn(before: str, after: str) -> tuple[Rule, Rule]:
    """Rename layers 0 and 1 of a Sequential to ``conv`` and ``bn`` of a module."""
    return (rf"{before}\.0\.", rf"{after}.conv."), (rf"{before}\.1\.", rf"{after}.bn.")


_V2_KEYS: tuple[Rule, ...] = (
    (r"^detail\.S1\.", "detail.detail_branch.0."),
    (r"^detail\.S2\.", "detail.detail_branch.1."),
    (r"^detail\.S3\.", "detail.detail_branch.2."),
    (r"^segment\.S1S2\.conv\.", "semantic.stage1.conv_first."),
    (r"^segment\.S1S2\.left\.", "semantic.stage1.convs."),
    (r"^segment\.S1S2\.fuse\.", "semantic.stage1.fuse_last."),
    (r"^segment\.S5_5\.bn\.", "semantic.stage4_CEBlock.gap.1."),
    (r"^segment\.S5_5\.", "semantic.stage4_CEBlock."),
    (r"^segment\.S3\.", "semantic.stage2."),
    (r"^segment\.S4\.", "semantic.stage3."),
    (r"^segment\.S5_4\.", "semantic.stage4."),
    *_conv_then_bn(r"\.dwconv", ".dwconv.0"),
    *_conv_then_bn(r"\.dwconv1", ".dwconv.0"),
    *_conv_then_bn(r"\.dwconv2", ".dwconv.1"),
    *_conv_then_bn(r"(stage\d\.\d)\.conv2", r"\1.conv2.0"),
    *_conv_then_bn(r"\.shortcut", ".shortcut.0.depthwise_conv"),
    (r"\.shortcut\.2\.", ".shortcut.0.pointwise_conv.conv."),
    (r"\.shortcut\.3\.", ".shortcut.0.pointwise_conv.bn."),
    (r"^bga\.left1\.", "bga.detail_dwconv."),
    (r"^bga\.right2\.", "bga.semantic_dwconv."),
    *_conv_then_bn(r"_dwconv", "_dwconv.0.depthwise_conv"),
    (r"_dwconv\.2\.", "_dwconv.0.pointwise_conv.conv."),
    *_conv_then_bn(r"^bga\.left2", "bga.detail_down.0"),
    *_conv_then_bn(r"^bga\.right1", "bga.semantic_conv.0"),
    *_conv_then_bn(r"^bga\.conv", "bga.conv"),
)


@register_backbone("bisenetv1_mmseg")
def bisenetv1() -> BiSeNetV1Trunk:
    """Build BiSeNet on ResNet-18: the fused map, and the context at strides 8 and 16."""
    module = BiSeNetV1Trunk(relu=True)
    publish_keys(module, _V1_KEYS)
    return module


@register_backbone("bisenetv2_mmseg")
def bisenetv2() -> BiSeNetV2Trunk:
    """Build BiSeNet V2: the aggregated map, and the semantic branch's at strides 4, 8, 16 and 32."""
    module = BiSeNetV2Trunk(bilinear=True)
    publish_keys(module, _V2_KEYS)
    return module


def stdc(blocks: tuple[int, int, int] = STDC1_BLOCKS) -> STDCTrunk:
    """Build STDC with its context path: the map at stride 8, the context at strides 16 and 8, and the fused map."""
    module = STDCTrunk(blocks, style=MMSEG)
    publish_keys(module, _STDC_KEYS)
    return module


register_backbone("stdc1_mmseg")(stdc)
register_backbone("stdc2_mmseg")(partial(stdc, STDC2_BLOCKS))
