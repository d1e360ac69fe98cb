"""What is kept beside the engines: the kernels of TensorRT for RTX, and the times that TensorRT measured."""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from edgeseg.bundle import Bundle
from edgeseg.errors import UsageError
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.tensorrt import kept_file
from tests.runtimes.bundles import make_tiny_bundle, picture
from tests.runtimes.fakes import KERNELS, TIMINGS, CudaGraphStrategy, FakeTensorRT


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path, targets=("trt", "trt-rtx"))


def opened(bundle: Bundle, target: str, **options: Any) -> Any:
    plans = bundle.path.parent / "plans"
    return open_session(bundle, target, RuntimeOptions(cache_dir=str(plans), **options))


def run_once(bundle: Bundle, **options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Open, run and close a session of TensorRT-RTX; its notes and its mode."""
    session = opened(bundle, "trt-rtx", **options)
    for _ in range(3):
        assert session.run(picture()[None])["logits"].size
    session.close()
    return session.info.notes[1:], session.info.mode  # the first says that the bundle holds no engine


def kernels(bundle: Bundle) -> Path:
    (file,) = (bundle.path.parent / "plans").glob("*.kernels")
    return file


def test_kernels_are_kept_between_runs(bundle: Bundle, fake_rtx: FakeTensorRT) -> None:
    assert run_once(bundle)[0] == ()
    assert kernels(bundle).read_bytes() == KERNELS
    assert kernels(bundle).stat().st_mode & 0o077 == 0
    written = kernels(bundle).stat().st_mtime_ns
    os.utime(kernels(bundle), ns=(1, 1))
    assert run_once(bundle)[0] == ()
    assert fake_rtx.kernels == [b"", KERNELS]
    assert kernels(bundle).stat().st_mtime_ns >= written  # used now, so not the next to go


def test_another_driver_makes_its_own_kernels(bundle: Bundle, fake_rtx: FakeTensorRT, fake_gpu: ctypes.CDLL) -> None:
    run_once(bundle)
    fake_gpu.fake_driver(13000)
    run_once(bundle)
    assert fake_rtx.kernels == [b"", b""]
    assert len(list((bundle.path.parent / "plans").glob("*.kernels"))) == 2


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("damage", "was damaged (its SHA-256 differs) and are made again"),
        ("mode", "can be written by others (its mode is 666) and are made again; keep others from writing into"),
        ("alone", "lost its description and are made again"),
        ("environment", "do not fit this machine any more and are made again"),
    ],
)
def test_kernels_that_cannot_be_used_are_made_again_and_that_is_said(
    bundle: Bundle, fake_rtx: FakeTensorRT, harm: str, said: str
) -> None:
    run_once(bundle)
    file = kernels(bundle)
    if harm == "damage":
        file.write_bytes(KERNELS + b"!")
    elif harm == "mode":
        file.chmod(0o666)
    elif harm == "alone":
        file.with_name(f"{file.name}.json").unlink()
    else:
        fake_rtx.refuse = {"deserialize_cache"}
    (note,) = run_once(bundle)[0]
    assert said in note
    assert fake_rtx.kernels[-1] == b""
    fake_rtx.refuse = set()
    assert run_once(bundle)[0] == ()
    assert fake_rtx.kernels[-1] == KERNELS


def test_a_folder_that_others_write_into_holds_no_kernels(bundle: Bundle, fake_rtx: FakeTensorRT) -> None:
    run_once(bundle)
    kernels(bundle).unlink()
    (bundle.path.parent / "plans").chmod(0o777)
    notes, _ = run_once(bundle)
    assert "can be written by others" in " ".join(notes)
    assert not list((bundle.path.parent / "plans").glob("*.kernels"))


def test_kernels_that_cannot_be_written_are_logged(
    bundle: Bundle, fake_rtx: FakeTensorRT, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from edgeseg.errors import StorageError

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    session = opened(bundle, "trt-rtx")
    monkeypatch.setattr(kept_file, "keep_private", full)
    with caplog.at_level(logging.WARNING):
        session.close()
    assert "the kernels of the engine are made again by the next run: the disk is full" in caplog.text


def test_rtx_makes_its_own_graphs(bundle: Bundle, fake_rtx: FakeTensorRT) -> None:
    """A frame around them is not captured: TensorRT-RTX allocates while it starts an engine."""
    _, mode = run_once(bundle)
    assert "CUDA graph of the engine" in mode
    assert "CUDA graph" not in mode
    assert fake_rtx.strategies == [CudaGraphStrategy.WHOLE_GRAPH_CAPTURE]
    assert fake_rtx.calls.count("execute") == 3
    _, mode = run_once(bundle, cuda_graph=False)
    assert "CUDA graph of the engine" not in mode
    assert fake_rtx.strategies[-1] == CudaGraphStrategy.DISABLED


def test_a_second_place_has_the_same_kernels(bundle: Bundle, fake_rtx: FakeTensorRT) -> None:
    session = opened(bundle, "trt-rtx")
    frames = [session.start(picture()[None]) for _ in range(2)]
    assert all(frame.result()["logits"].size for frame in frames)
    assert fake_rtx.kernels == [b"", KERNELS]
    session.close()


def test_an_older_rtx_without_graphs_says_so(bundle: Bundle, fake_rtx_module: Any) -> None:
    del fake_rtx_module.CudaGraphStrategy
    notes, mode = run_once(bundle)
    assert notes == ("this TensorRT-RTX makes no CUDA graphs, so that each part of a frame is started by itself",)
    assert not [word for word in mode if "graph" in word]


def timings(bundle: Bundle) -> bytes:
    (file,) = (bundle.path.parent / "plans").glob("*.timings")
    return file.read_bytes()


@pytest.mark.usefixtures("tensorrt")
def test_times_of_kernels_are_kept_between_builds(bundle: Bundle, tensorrt: FakeTensorRT) -> None:
    opened(bundle, "trt").close()
    assert timings(bundle) == TIMINGS + b"1"
    opened(bundle, "trt", precision="tf32").close()  # another plan, built on the same GPU
    assert timings(bundle) == TIMINGS + b"2"
    opened(bundle, "trt").close()
    assert tensorrt.calls.count("build") == 2


@pytest.mark.parametrize("harm", ["damage", "another GPU", "mode"])
def test_times_that_do_not_fit_are_taken_anew_and_that_is_logged(
    bundle: Bundle, tensorrt: FakeTensorRT, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    opened(bundle, "trt").close()
    (file,) = (bundle.path.parent / "plans").glob("*.timings")
    if harm == "damage":
        file.write_bytes(b"TIMINGS7")
    elif harm == "mode":
        file.chmod(0o666)
    else:
        tensorrt.refuse = {"set_timing_cache"}
    with caplog.at_level(logging.WARNING):
        opened(bundle, "trt", precision="tf32").close()
    assert "they are timed again" in caplog.text
    assert timings(bundle) == TIMINGS + b"1"


def test_rtx_builds_without_timings(bundle: Bundle, fake_rtx: FakeTensorRT) -> None:
    run_once(bundle)
    assert "create_timing_cache" not in fake_rtx.calls
    assert not list((bundle.path.parent / "plans").glob("*.timings"))


def test_the_builder_s_level_is_an_option_of_tensorrt(bundle: Bundle, tensorrt: FakeTensorRT) -> None:
    opened(bundle, "trt").close()
    opened(bundle, "trt", builder_level=5).close()
    opened(bundle, "trt", builder_level=5).close()
    assert tensorrt.levels == [3, 5]  # another level is another plan
    with pytest.raises(UsageError, match=r"builder_level is 6; it must be 0 \(builds fastest\) to 5"):
        opened(bundle, "trt", builder_level=6)
    with pytest.raises(UsageError, match="trt-rtx target has no use for builder_level=5"):
        opened(bundle, "trt-rtx", builder_level=5)


def test_the_oldest_of_every_kind_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_file, "MOST_BYTES", 25)
    for age, name in enumerate(("a.plan", "b.kernels", "c.timings", "d.plan")):
        file = kept_file.KeptFile(tmp_path / name, {"for": name})
        file.write(b"0123456789")
        os.utime(file.path, ns=(age, age))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["c.timings", "c.timings.json", "d.json", "d.plan"]
