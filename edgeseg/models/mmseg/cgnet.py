"""CGNet as mmsegmentation's backbone: the authors' graph (`edgeseg.models.families.cgnet`) under mmsegmentation's keys.

Wu et al., "CGNet: A Light-weight Context Guided Network for Semantic Segmentation", 2018, arXiv 1811.08201. Equal to
mmsegmentation 1.2.2, third-party.
"""

from __future__ import annotations

import re

from edgeseg.models.backbones.registry import register_backbone
from edgeseg.models.families.cgnet import CGNetTrunk
from edgeseg.models.layers.keys import Rule, publish_keys

__all__ = ["cgnet"]


def _stage(match: re.Match[str]) -> str:
    """Rename the strided block, ``level2_0``, to the first of its row, ``level1.0``; the others follow it."""
    block = 0 if match[2] is None else int(match[2]) + 1
    return f"level{int(match[1]) - 1}.{block}."


_KEYS: tuple[Rule, ...] = (
    (r"^level1_(\d)\.", r"stem.\1."),
    (r"^level([23])(?:_0|\.(\d+))\.", _stage),
    (r"^b1\.", "norm_prelu_0."),
    (r"^bn_prelu_2\.", "norm_prelu_1."),
    (r"^bn_prelu_3\.", "norm_prelu_2."),
    (r"^(norm_prelu_\d)\.bn\.", r"\1.0."),
    (r"^(norm_prelu_\d)\.act\.", r"\1.1."),
    (r"\.bn_prelu\.", "."),
    (r"\.act\.", ".activate."),
    (r"\.F_(loc|sur)\.conv\.", r".f_\1."),
    (r"\.reduce\.conv\.", ".bottleneck."),
    (r"\.F_glo\.", ".f_glo."),
)


@register_backbone("cgnet_mmseg")
def cgnet() -> CGNetTrunk:
    """Build CGNet with 3 and 21 blocks: maps of 35, 131 and 256 channels at strides 2, 4 and 8."""
    module = CGNetTrunk()
    publish_keys(module, _KEYS)
    return module
