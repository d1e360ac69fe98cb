"""ncnn behind the seam: exact in fp32 by switching its defaults off, and what it refuses."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeseg.bundle import Bundle, open_bundle
from edgeseg.errors import BundleError, EdgesegError, TargetUnavailableError, UnknownNameError, UsageError
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.ncnn import NCNN_MODEL, NCNN_WEIGHTS
from edgeseg.runtimes.ncnn.session import load_net, run_net
from edgeseg.specs import InputSpec
from tests.runtimes.bundles import changed, make_tiny_bundle, picture

ncnn = pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

ON_X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    spec = InputSpec.imagenet("bgr")
    return make_tiny_bundle(tmp_path_factory.mktemp("ncnn"), targets=("ort", "ncnn"), spec=spec)


def test_nothing_rounds_unless_it_is_asked_for(bundle: Bundle) -> None:
    """ncnn's own defaults are half precision wherever the CPU has it."""
    model, weights = bundle.file(NCNN_MODEL), bundle.file(NCNN_WEIGHTS)
    rounding = [name for name in dir(ncnn.Option) if "fp16" in name or "bf16" in name]
    assert any(getattr(ncnn.Net().opt, name) for name in rounding)
    net = load_net(ncnn, model, weights)
    assert not [name for name in rounding if getattr(net.opt, name)]
    half = load_net(ncnn, model, weights, on=("use_fp16_storage",))
    assert [name for name in rounding if getattr(half.opt, name)] == ["use_fp16_storage"]


def test_info_says_what_runs(bundle: Bundle) -> None:
    with open_session(bundle, "ncnn", RuntimeOptions(threads=1, precision="f32")) as session:  # type: ignore[attr-defined]
        assert session.info.engine == f"ncnn {ncnn.__version__}"
        assert (session.info.device, session.info.precision, session.info.threads) == ("CPU", "fp32", 1)
        assert [(t.name, t.shape, t.dtype) for t in session.outputs] == [("logits", (1, 4, 4, 6), "float32")]
    assert open_session(bundle, "ncnn").info.threads == ncnn.Net().opt.num_threads


@pytest.mark.parametrize("size", [(32, 48), (24, 40), (40, 8)])
def test_logits_are_those_of_onnx_runtime_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "ncnn"), size=size, num_classes=3)
    image = picture(size)[None]
    wanted = open_session(bundle, "ort").run(image)["logits"]
    got = open_session(bundle, "ncnn").run(image)["logits"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.ptp(wanted))


def test_pictures_of_a_batch_are_what_they_are_alone(bundle: Bundle) -> None:
    pair = changed(bundle, batch=2, graphs=False)
    images = np.stack([picture(seed=1), picture(seed=2)])
    alone = open_session(bundle, "ncnn")
    got = open_session(pair, "ncnn").run(images)["logits"]
    assert got.shape == (2, 4, 4, 6)
    for logits, image in zip(got, images, strict=True):
        np.testing.assert_array_equal(logits, alone.run(image[None])["logits"][0])
    changed(bundle, batch=1, graphs=False)


@pytest.mark.parametrize("word", ["bf16", "BF16-storage"])
def test_bf16_is_refused_with_the_reason(bundle: Bundle, word: str) -> None:
    with pytest.raises(UsageError, match=r"ncnn.s bf16 gives infinities or garbage on .* leave precision"):
        open_session(bundle, "ncnn", RuntimeOptions(precision=word))


@pytest.mark.skipif(not ON_X86, reason="x86 ignores ncnn's half precision; other CPUs may have it")
@pytest.mark.parametrize("word", ["f16", "f16-storage"])
def test_half_precision_is_not_claimed_where_ncnn_ignores_it(bundle: Bundle, word: str) -> None:
    with pytest.raises(TargetUnavailableError, match=f"ncnn does not compute in {word} on this CPU"):
        open_session(bundle, "ncnn", RuntimeOptions(precision=word))


@pytest.mark.parametrize(
    ("word", "told", "on"),
    [
        ("f16-storage", "fp16 storage", ["use_fp16_packed", "use_fp16_storage"]),
        ("f16", "fp16", ["use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"]),
    ],
)
def test_half_precision_is_switched_on_and_told(
    bundle: Bundle, word: str, told: str, on: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switches alone: x86 ignores them, so that no number of half precision is checked here."""
    monkeypatch.setattr(ncnn, "cpu_support_arm_vfpv4", lambda: True)
    monkeypatch.setattr(ncnn, "cpu_support_arm_asimdhp", lambda: True)
    session = open_session(bundle, "ncnn", RuntimeOptions(precision=word))
    assert session.info.precision == told
    option = session._net.opt  # type: ignore[attr-defined]
    assert {name for name in dir(option) if ("fp16" in name or "bf16" in name) and getattr(option, name)} == set(on)


def test_a_precision_that_ncnn_does_not_have(bundle: Bundle) -> None:
    with pytest.raises(UnknownNameError, match="unknown ncnn precision 'f61'"):
        open_session(bundle, "ncnn", RuntimeOptions(precision="f61"))


@pytest.mark.parametrize("name", [NCNN_MODEL, NCNN_WEIGHTS])
def test_a_file_that_is_cut_off_is_said(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ncnn",))
    file = bundle.file(name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BundleError, match=f"ncnn cannot read '.*{name}'; copy or export the bundle again"):
        open_session(bundle, "ncnn")
    assert "failed" in capfd.readouterr().err  # ncnn's own words


def test_a_graph_of_another_manifest_is_told(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ncnn",))
    other = make_tiny_bundle(tmp_path / "other", targets=("ncnn",), align_corners=True)
    bundle.file(NCNN_MODEL).write_bytes(other.file(NCNN_MODEL).read_bytes())
    changed(bundle)
    with pytest.raises(BundleError, match=rf"{NCNN_MODEL} in bundle .* was exported with another manifest"):
        open_bundle(bundle.path)


class Broken:
    """An ``ncnn.Net`` whose extractor fails."""

    def __init__(self, code: int, *, knows: bool = True) -> None:
        self.code, self.knows = code, knows

    def create_extractor(self) -> Broken:
        return self

    def input(self, name: str, image: object) -> int:
        return 0 if self.knows else -1

    def extract(self, name: str) -> tuple[int, object]:
        return self.code, SimpleNamespace(empty=lambda: True)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Broken(-100), r"ncnn failed to run the graph \(code -100\)"),
        (Broken(0), r"ncnn failed to run the graph \(code 0\)"),
        (Broken(0, knows=False), "it has no input in0"),
    ],
)
def test_a_graph_that_fails_is_said(net: Broken, words: str) -> None:
    with pytest.raises(EdgesegError, match=words):
        run_net(ncnn, net, np.zeros((3, 8, 8), np.float32))


def test_logits_of_another_shape_are_refused(bundle: Bundle) -> None:
    other = changed(bundle, logit_size=(8, 12), graphs=False)
    with pytest.raises(EdgesegError, match=r"ncnn gave logits \(4, 4, 6\), expected \(4, 8, 12\)"):
        open_session(other, "ncnn").run(picture()[None])
    changed(bundle, logit_size=(4, 6), graphs=False)
