"""Predictors in several processes: pickled, in pools of every kind, and in PyTorch's DataLoader."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg import Predictor, errors
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, EdgesegError, InputError, UnknownNameError, UsageError
from edgeseg.runtimes import RuntimeOptions
from edgeseg.runtimes._base import INHERITED
from edgeseg.signing import sign_bundle
from tests.predictor.fakes import Fake
from tests.runtimes.bundles import make_tiny_bundle, picture
from tests.test_signing import make_key

METHODS = [method for method in ("spawn", "forkserver") if method in multiprocessing.get_all_start_methods()]


class Named(Predictor):
    """A user's subclass."""


def labels_of(predictor: Predictor, seed: int) -> NDArray[Any]:
    return predictor(picture(seed=seed)).labels


def again(predictor: Predictor) -> Predictor:
    back = pickle.loads(pickle.dumps(predictor))
    assert isinstance(back, Predictor)
    return back


@pytest.mark.parametrize("target", ["ort", "openvino"])
def test_a_pickled_predictor_predicts_the_same(tmp_path: Path, target: str) -> None:
    pytest.importorskip({"ort": "onnxruntime"}.get(target, target))
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "openvino"))
    with Predictor(bundle.path, target=target, threads=1) as predictor, again(predictor) as back:
        assert back.info == predictor.info
        np.testing.assert_array_equal(labels_of(back, 3), labels_of(predictor, 3))


def test_every_setting_travels(tiny: Bundle) -> None:
    settings: dict[str, Any] = {
        "output": (20, 30),
        "scores": True,
        "keep_image": False,
        "check": False,
        "input_size": (32, 48),
        "device": "CPU",
        "options": RuntimeOptions(threads=1, provider_options={}),
        "max_pixels": 9999,
        "strict": True,
    }
    with Named(tiny, **settings) as predictor, again(predictor) as back:
        assert type(back) is Named
        assert back._config == predictor._config
        result = back(picture())
        assert (result.size, result.image, result.scores is None) == ((20, 30), None, False)


def test_an_opened_bundle_travels_as_its_path(tiny: Bundle) -> None:
    with Predictor(tiny) as predictor, again(predictor) as back, copy.deepcopy(predictor) as other:
        wanted = labels_of(predictor, 1)
        np.testing.assert_array_equal(labels_of(back, 1), wanted)
        np.testing.assert_array_equal(labels_of(other, 1), wanted)


def test_relative_paths_travel_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "openvino"))
    key = make_key(tmp_path, "key")
    sign_bundle(bundle.path, key)
    monkeypatch.chdir(tmp_path)
    with Predictor(bundle.path.name, trusted_keys=["key.pub.pem"]) as predictor:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with again(predictor) as back:
            np.testing.assert_array_equal(labels_of(back, 2), labels_of(predictor, 2))
        (bundle.path / "signature.sig").unlink()
        with pytest.raises(BundleError):
            again(predictor)


def test_a_damaged_bundle_is_refused_again(tiny: Bundle) -> None:
    with Predictor(tiny.path) as predictor:
        stored = pickle.dumps(predictor)
    model = tiny.path / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        pickle.loads(stored)


def test_another_bundle_in_its_place_is_refused(tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path)
    with Predictor(tiny.path) as predictor:
        stored = pickle.dumps(predictor)
    shutil.rmtree(tiny.path)
    make_tiny_bundle(tmp_path, seed=7)
    with pytest.raises(BundleError, match="is not the one that the Predictor was pickled with"):
        pickle.loads(stored)


def test_what_cannot_travel_is_named(fake: Fake) -> None:
    options = RuntimeOptions(provider_options={"logger": lambda: None})  # type: ignore[dict-item]
    predictor, _ = fake(options=options)
    with pytest.raises(UsageError, match=r"cannot be pickled: its setting options .*; open a Predictor in the other p"):
        pickle.dumps(predictor)


@pytest.mark.parametrize("method", METHODS)
def test_pools_of_other_processes(tiny: Bundle, method: str) -> None:
    context = multiprocessing.get_context(method)
    with Predictor(tiny, threads=1) as predictor, ProcessPoolExecutor(2, mp_context=context) as pool:
        results = list(pool.map(labels_of, [predictor] * 3, range(3), timeout=120))
        for seed, labels in enumerate(results):
            np.testing.assert_array_equal(labels, labels_of(predictor, seed))


def test_joblib(tiny: Bundle) -> None:
    joblib = pytest.importorskip("joblib")
    with Predictor(tiny, threads=1) as predictor:
        results = joblib.Parallel(n_jobs=2, timeout=120)(
            joblib.delayed(labels_of)(predictor, seed) for seed in range(3)
        )
        for seed, labels in enumerate(results):
            np.testing.assert_array_equal(labels, labels_of(predictor, seed))


class Pictures:
    """A data set that predicts in the worker: by the Predictor it is given, or by one that each process opens."""

    def __init__(self, path: Path, predictor: Predictor | None = None) -> None:
        self.path, self.predictor = path, predictor

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> NDArray[Any]:
        if self.predictor is None:
            self.predictor = Predictor(self.path, threads=1)
        return labels_of(self.predictor, index)


def loaded(data: Pictures, method: str) -> list[NDArray[Any]]:
    """What a DataLoader with one worker gives."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        data,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=1,
        multiprocessing_context=method,
        timeout=120,
        collate_fn=np.asarray,
    )
    return list(loader)


@pytest.mark.parametrize("method", METHODS[:1])
def test_data_loader_with_spawned_workers(tiny: Bundle, method: str) -> None:
    pytest.importorskip("torch")
    with Predictor(tiny, threads=1) as predictor:
        for seed, labels in enumerate(loaded(Pictures(tiny.path, predictor), method)):
            np.testing.assert_array_equal(labels, labels_of(predictor, seed))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is POSIX")
def test_data_loader_with_forked_workers(tiny: Bundle) -> None:
    pytest.importorskip("torch")
    with Predictor(tiny, threads=1) as predictor:
        results = loaded(Pictures(tiny.path), "fork")
        assert len(results) == 3
        for seed, labels in enumerate(results):
            np.testing.assert_array_equal(labels, labels_of(predictor, seed))
        with pytest.raises(InputError, match=INHERITED):
            loaded(Pictures(tiny.path, predictor), "fork")


def test_every_error_reaches_the_parent() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EdgesegError)]
    assert len(kinds) > 10
    for kind in kinds:
        error = UnknownNameError("target", "orrt", ["ort"]) if kind is UnknownNameError else kind("what is wrong")
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.exit_code) == (kind, str(error), kind.exit_code)


def test_a_result_can_be_pickled(tiny: Bundle) -> None:
    with Predictor(tiny, scores=True) as predictor:
        result = predictor(picture())
    back = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(back.labels, result.labels)
    assert (back.names, back.timings) == (result.names, result.timings)
