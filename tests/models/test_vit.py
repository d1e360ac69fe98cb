"""The vision transformer, the pieces it is made of, and the heads that sit on it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.export.deploy import DeployNetwork
from edgeseg.export.to_onnx import export_onnx, simplify
from edgeseg.models import create_model
from edgeseg.models.backbones.registry import create_backbone, list_backbones
from edgeseg.models.backbones.vit import VIT_SIZES, VisionTransformer, ViTOptions, vit
from edgeseg.models.heads.base import DecodeHead
from edgeseg.models.heads.dpt import DPTHead
from edgeseg.models.heads.registry import build_from_config
from edgeseg.models.heads.setr import MLANeck, SETRMLAHead, SETRUPHead
from edgeseg.models.layers.transformer import FFN, MultiheadAttention, map_to_tokens, tokens_to_map
from edgeseg.models.segmentor import Segmentor, create_segmentor
from edgeseg.specs import InputSpec

EXACT = 1e-12
SEGMENTER = {"type": "SegmenterMaskTransformerHead", "embed_dims": 6}


def _randn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _close(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and float((got - want).detach().abs().max()) < EXACT


def _small(**options: object) -> VisionTransformer:
    chosen = {"img_size": (32, 48), "patch_size": 8, "embed_dims": 12, "num_layers": 2, "num_heads": 3, **options}
    torch.manual_seed(0)
    return VisionTransformer(ViTOptions(**chosen)).double().eval()  # type: ignore[arg-type]


def test_tokens_lie_row_by_row() -> None:
    x = _randn(2, 3, 4, 5)
    assert torch.equal(map_to_tokens(x)[:, 7], x[:, :, 1, 2])
    assert torch.equal(tokens_to_map(map_to_tokens(x), (4, 5)), x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("context", [None, _randn(2, 5, 12)])
def test_attention_is_torchs(bias: bool, context: Tensor | None) -> None:
    want = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double().eval()
    if bias:
        nn.init.normal_(want.in_proj_bias)
        nn.init.normal_(want.out_proj.bias)
    attention = MultiheadAttention(12, 3, bias=bias).double()
    attention.attn.load_state_dict(want.state_dict())
    query = _randn(2, 7, 12)
    source = query if context is None else context
    assert _close(attention(query, context), want(query, source, source)[0])


def test_heads_divide_the_channels() -> None:
    with pytest.raises(UsageError, match="12 channels"):
        MultiheadAttention(12, 5)


def test_feed_forward_network_of_three_layers() -> None:
    network = FFN(4, 6, num_fcs=3, act=nn.ReLU).double()
    first, second, last = network.layers[0][0], network.layers[1][0], network.layers[2]  # type: ignore[index]
    x = _randn(2, 3, 4)
    assert _close(network(x), last(second(first(x).relu()).relu()))


def test_positions_of_the_stored_grid() -> None:
    network = _small()
    assert torch.equal(network.positions((4, 6)), network.pos_embed[:, 1:])
    assert torch.equal(network.positions((3, 8)), network.pos_embed[:, 1:])  # as published: the number alone counts


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_positions_of_another_grid(mode: str) -> None:
    network = _small(interpolate_mode=mode)
    stored = network.pos_embed[0, 1:].t().reshape(1, 12, 4, 6)
    want = F.interpolate(stored, size=(5, 9), mode=mode, align_corners=False)[0].flatten(1).t()[None]
    assert _close(network.positions((5, 9)), want)


def test_nearest_positions() -> None:
    network = _small(interpolate_mode="nearest")
    assert torch.equal(network.positions((8, 12))[0, :2], network.pos_embed[0, [1, 1]])


def test_image_is_padded_at_the_right_and_at_the_bottom() -> None:
    network, image = _small(), _randn(1, 3, 29, 43)
    (got,) = network.features(image)
    (want,) = network.features(F.pad(image, (0, 5, 0, 3)))
    assert got.shape == (1, 12, 4, 6)
    assert torch.equal(got, want)


def test_which_layers_are_put_out() -> None:
    image = _randn(1, 3, 32, 48)
    both, last = _small(out_indices=(0, 1)), _small()
    last.load_state_dict(both.state_dict())
    assert [info.channels for info in both.feature_info] == [12, 12]
    assert torch.equal(both.features(image)[1], last.features(image)[0])
    with pytest.raises(UsageError, match="0 to 1"):
        _small(out_indices=(0, 2))


def test_final_norm_is_of_the_last_layer_alone() -> None:
    image = _randn(1, 3, 32, 48)
    plain, normed = _small(out_indices=(0, 1)), _small(out_indices=(0, 1), final_norm=True)
    normed.load_state_dict(plain.state_dict(), strict=False)
    maps, others = plain.features(image), normed.features(image)
    assert torch.equal(maps[0], others[0])
    assert _close(others[1], F.layer_norm(maps[1].permute(0, 2, 3, 1), (12,), eps=1e-5).permute(0, 3, 1, 2))


def test_without_class_token_it_has_no_influence() -> None:
    image, network = _randn(1, 3, 32, 48), _small(with_cls_token=False)
    (before,) = network.features(image)
    nn.init.constant_(network.cls_token, 5.0)
    assert torch.equal(network.features(image)[0], before)


def test_class_tokens_follow_the_maps() -> None:
    network = _small(out_indices=(0, 1), output_cls_token=True)
    outputs = network(_randn(2, 3, 32, 48))
    assert [tuple(x.shape) for x in outputs] == [(2, 12, 4, 6)] * 2 + [(2, 12, 1, 1)] * 2
    with pytest.raises(UsageError, match="with_cls_token"):
        _small(with_cls_token=False, output_cls_token=True)


def test_published_sizes() -> None:
    with torch.device("meta"):
        large = vit("large")
        tiny = create_backbone("vit_tiny")
    assert large.out_indices == (5, 11, 17, 23)
    assert isinstance(tiny, VisionTransformer)
    assert {f"vit_{size}" for size in VIT_SIZES} <= set(list_backbones())
    with pytest.raises(UnknownNameError, match="small"):
        vit("smal")


@pytest.mark.parametrize(
    ("head", "neck", "stride"),
    [("setr_up", None, 4), ("setr_mla", "mla", 4), ("dpt", None, 2), ("segmenter", None, 16)],
)
def test_heads_on_a_transformer_by_name(head: str, neck: str | None, stride: int) -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone="vit_tiny", head=head, neck=neck, num_classes=5)
    with torch.no_grad():
        logits = network(torch.empty(1, 3, 64, 128, device="meta"))
    assert logits.shape == (1, 5, 64 // stride, 128 // stride)


def test_dpt_reads_class_tokens_from_the_transformer() -> None:
    backbone = _small(num_layers=4, out_indices=(0, 1, 2, 3), output_cls_token=True)
    network = create_segmentor(backbone=backbone, head="dpt", num_classes=3, readout_type="project").double()
    assert network(_randn(1, 3, 32, 48)).shape == (1, 3, 32, 48)


def _dpt(**options: object) -> DPTHead:
    chosen = {"in_channels": (6,) * 4, "in_index": (0, 1, 2, 3), "channels": 4, "num_classes": 2, "embed_dims": 6}
    head = DPTHead(**{**chosen, "post_process_channels": (2, 3, 4, 5), **options})  # type: ignore[arg-type]
    return head.double().eval()


def test_dpt_adds_class_tokens() -> None:
    maps, tokens = (
        [_randn(1, 6, 2, 4 + k)[..., :4] for k in range(4)],
        [_randn(1, 6 + k, 1, 1)[:, :6] for k in range(4)],
    )
    adding, ignoring = _dpt(readout_type="add"), _dpt()
    ignoring.load_state_dict(adding.state_dict())
    assert _close(adding([*maps, *tokens]), ignoring([x + token for x, token in zip(maps, tokens, strict=True)]))


@pytest.mark.parametrize("count", [4, 8])
def test_dpt_without_class_tokens_says_how_to_get_them(count: int) -> None:
    with pytest.raises(UsageError, match="output_cls_token=True"):
        _dpt(readout_type="project")([_randn(1, 6, 2, 2)] * count)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"readout_type": "multiply"}, "ignore, add, project"),
        ({"post_process_channels": (2, 3)}, "give 4"),
        ({"in_channels": (6, 6), "in_index": (0, 1)}, "give 4"),
    ],
)
def test_options_that_dpt_does_not_take(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _dpt(**options)


def test_dpt_expands_its_channels() -> None:
    head = _dpt(expand_channels=True, post_process_channels=(2, 2, 2, 2))
    assert [conv[0].in_channels for conv in head.convs] == [2, 4, 8, 16]  # type: ignore[index]


def test_neck_sums_from_the_deepest_map_on() -> None:
    neck, maps = (
        MLANeck(in_channels=(4, 4, 4), out_channels=3).double().eval(),
        [_randn(1, 4, 3, k + 2) for k in range(3)],
    )
    maps = [x[..., :2] for x in maps]
    before = neck(maps)
    after = neck([maps[0] + _randn(1, 4, 3, 2), *maps[1:]])
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False]


def test_options_that_setr_does_not_take() -> None:
    with pytest.raises(UsageError, match="kernel_size is 5"):
        SETRUPHead(in_channels=4, channels=4, num_classes=2, kernel_size=5)
    with pytest.raises(UsageError, match="channels is 9"):
        SETRMLAHead(in_channels=(4, 4), in_index=(0, 1), channels=9, mla_channels=4, num_classes=2)


@pytest.mark.parametrize(
    ("config", "norm", "eps"),
    [
        ({"type": "SETRUPHead", "norm_layer": {"type": "LN", "eps": 1e-3}, "norm_cfg": {"type": "BN"}}, "norm", 1e-3),
        ({"type": "SETRUPHead"}, "norm", 1e-6),
        ({**SEGMENTER, "norm_cfg": {"type": "LN", "eps": 1e-4}}, "layers.0.ln1", 1e-4),
        ({**SEGMENTER, "drop_path_rate": 0.1}, "mask_norm", 1e-5),
    ],
)  # fmt: skip
def test_eps_of_a_published_configuration(config: dict[str, object], norm: str, eps: float) -> None:
    head = build_from_config({**config, "in_channels": 6, "channels": 6, "num_classes": 2})
    assert isinstance(head, DecodeHead)
    assert head.get_submodule(norm).eps == eps


@pytest.mark.parametrize(("name", "count"), [("mmseg_setr_naive_tiny", 3), ("mmseg_setr_mla_tiny", 4)])
def test_auxiliary_heads(name: str, count: int) -> None:
    network, image = create_model(name, aux=True), torch.zeros(1, 3, 32, 64)
    assert isinstance(network, Segmentor)
    with torch.no_grad():
        logits, *others = network.forward_train(image)
        assert torch.equal(logits, network(image))
    assert len(others) == count


def _linear(backbone: VisionTransformer) -> Segmentor:
    """A linear classifier of the patches, in single precision."""
    network = create_segmentor(
        backbone=backbone, head="fcn", num_convs=0, concat_input=False, channels=12, num_classes=2
    )
    return network.float().eval()


def test_resized_positions_are_a_constant_of_the_export() -> None:
    network = _linear(_small(num_layers=1))
    graph = simplify(export_onnx(DeployNetwork(network, InputSpec.imagenet()), (40, 72))).graph
    kinds = {node.op_type for node in graph.node}
    assert "Resize" not in kinds
    assert {"MatMul", "Softmax", "LayerNormalization"} <= kinds


def test_export_of_free_size_resizes_the_positions() -> None:
    ort = pytest.importorskip("onnxruntime")
    network = DeployNetwork(_linear(_small(num_layers=1)), InputSpec.imagenet()).eval()
    session = ort.InferenceSession(export_onnx(network, (48, 64), dynamic=True).SerializeToString())
    image = torch.arange(29 * 43 * 3, dtype=torch.uint8).reshape(1, 29, 43, 3)
    (got,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), network(image), rtol=0, atol=1e-5)
