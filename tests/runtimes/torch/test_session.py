"""The PyTorch reference: the network rebuilt by name, normalised as recorded, in float32."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, CheckpointError, InputError, TargetUnavailableError, UsageError
from edgeseg.models import create_model
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.torch.session import TorchSession, normalise
from edgeseg.specs import InputSpec
from tests.runtimes.bundles import make_tiny_bundle, picture, tiny_network, tiny_weights

#: Largest difference of logits of the tiny network (range about 40) between two float32 engines.
TOLERANCE = 2e-5

NETWORK = "tests.runtimes.bundles:tiny_network"
OWN = RuntimeOptions(network=NETWORK)

SPEC = InputSpec("bgr", (10.0, 20.0, 30.0), (40.0, 50.0, 60.0), 0.5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("torch"), targets=("ort", "torch"), spec=SPEC)


def test_logits_are_those_of_onnx_runtime(bundle: Bundle) -> None:
    image = picture()[None]
    wanted = open_session(bundle, "ort").run(image)["logits"]
    got = open_session(bundle, "pytorch", OWN).run(image)["logits"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)


def test_normalisation_is_as_recorded() -> None:
    image = picture((8, 8))
    got = normalise(torch.from_numpy(image[None]), SPEC)[0].numpy()
    wanted = (image[..., ::-1].astype(np.float64) - SPEC.mean) / SPEC.std * SPEC.scale
    np.testing.assert_allclose(got, wanted.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


def test_info_is_what_runs(bundle: Bundle) -> None:
    session = open_session(bundle, "torch", OWN)
    assert session.info.engine == f"torch {torch.__version__}"
    assert (session.info.device, session.info.precision) == ("CPU", "fp32")
    assert session.info.threads == torch.get_num_threads()
    assert session.inputs[0].shape == (1, 32, 48, 3)


def test_weights_given_go_before_the_bundles(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    state = {key: torch.from_numpy(value) for key, value in tiny_weights(4, seed=7).items()}
    torch.save(state, file)
    image = picture()[None]
    own = open_session(bundle, "torch", OWN).run(image)["logits"]
    other = open_session(bundle, "torch", RuntimeOptions(weights=str(file), network=NETWORK)).run(image)["logits"]
    assert float(np.abs(own - other).max()) > 1.0


def test_weights_that_do_not_fit_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(9, 3, 3, 3), "conv.bias": torch.zeros(9)}, file)
    with pytest.raises(CheckpointError, match="does not fit"):
        open_session(bundle, "torch", RuntimeOptions(weights=str(file), network=NETWORK))


def test_a_bundle_without_weights_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no PyTorch weights; export it again with --target torch"):
        open_session(make_tiny_bundle(tmp_path), "torch")


@pytest.mark.parametrize("network", [NETWORK, "no_such_package.nets:build", "no_such_network", "SomeClass", "os:abort"])
def test_a_network_that_only_the_bundle_names_is_not_built(bundle: Bundle, network: str) -> None:
    renamed = replace(bundle, manifest=replace(bundle.manifest, network=network))
    with pytest.raises(TargetUnavailableError, match=f"'{network}' .* none of edgeseg's own.*--network package"):
        open_session(renamed, "torch")


def test_a_network_that_the_user_names_is_built(bundle: Bundle) -> None:
    renamed = replace(bundle, manifest=replace(bundle.manifest, network="os:abort"))
    assert open_session(renamed, "torch", OWN).run(picture()[None])["logits"].shape == (1, 4, 4, 6)


def test_a_registered_network_is_built_by_its_name(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(create_model("extremec3net", num_classes=4).state_dict(), file)
    named = replace(bundle, manifest=replace(bundle.manifest, network="extremec3net"))
    session = open_session(named, "torch", RuntimeOptions(weights=str(file)))
    assert session.run(picture()[None])["logits"].shape[:2] == (1, 4)


def test_from_module_takes_any_size_and_batch() -> None:
    session = TorchSession.from_module(tiny_network(), InputSpec())
    assert session.run(np.stack([picture((16, 24))] * 3))["logits"].shape == (3, 4, 2, 3)
    fixed = TorchSession.from_module(tiny_network(), InputSpec(), (16, 24))
    with pytest.raises(InputError, match=r"takes uint8 \?x16x24x3"):
        fixed.run(picture((32, 24))[None])


def test_from_module_evaluates() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Dropout(0.9)).train()
    session = TorchSession.from_module(module, InputSpec())
    image = picture((8, 8))[None]
    np.testing.assert_array_equal(session.run(image)["logits"], session.run(image)["logits"])


def test_devices(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="device 'gpu' is none of PyTorch's"):
        open_session(bundle, "torch", RuntimeOptions(device="gpu"))
    with pytest.raises(TargetUnavailableError, match="GPUs, asked for cuda:99"):
        open_session(bundle, "torch", RuntimeOptions(device="cuda:99"))
    with pytest.raises(UsageError, match="torch target has no use for hint='latency'"):
        open_session(bundle, "torch", RuntimeOptions(hint="latency"))


def test_without_torch_one_sentence(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TargetUnavailableError, match=r"torch target needs the package torch.*edgeseg\[export\]"):
        open_session(bundle, "torch", OWN)


def test_running_after_close_is_refused(bundle: Bundle) -> None:
    session = open_session(bundle, "torch", OWN)
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run(picture()[None])
