"""ESPNet's CamVid weights on the CamVid test set: the published 55.64 mIoU, through the bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.evaluation import LabelledPictures, evaluate_bundle
from tests.real.conftest import Export


@pytest.mark.parametrize("target", ["ort", "openvino"])
def test_published_accuracy(target: str, export_real: Export, shared: Path) -> None:
    folder = shared / "camvid" / "test"
    if not folder.is_dir():
        pytest.skip("the CamVid test set is not beside the checkout")
    bundle = export_real("espnet_p2_q8_trainvariant", "decoder_espnet_p_2_q_8_camvid.pth", (360, 480))
    data = LabelledPictures(folder / "images", folder / "labels", ignore=11)
    result = evaluate_bundle(bundle, data, target=target)
    published = result.scores()["predictions on void count as errors"]
    assert result.images == 233
    assert 100 * published["mIoU"] == pytest.approx(55.65, abs=0.05)
    assert 100 * published["class average"] == pytest.approx(68.30, abs=0.05)
    assert 100 * result.scores()["void ignored"]["mIoU"] == pytest.approx(57.18, abs=0.05)
