"""The check of a GPU, on a fake one: it passes where all is right, and what is wrong fails by name."""

from __future__ import annotations

import ctypes
import functools
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.bench.gpu import Finding, GpuCheckSettings
from edgeseg.bench.gpu import check as checks
from edgeseg.bench.gpu import driver as driver_module
from edgeseg.bench.gpu import engine as engine_module
from edgeseg.bench.gpu.check import GpuCheck, Run, Watch
from edgeseg.bench.gpu.driver import driver_checks
from edgeseg.bench.gpu.engine import Budget
from edgeseg.bench.gpu.layers import layers_of
from edgeseg.bench.machine import describe_machine
from edgeseg.bundle import Bundle
from edgeseg.cli import run
from edgeseg.errors import EdgesegError, TargetUnavailableError, UsageError
from edgeseg.runtimes.tensorrt import cuda, plan_cache
from edgeseg.runtimes.tensorrt import driver as drivers
from edgeseg.runtimes.tensorrt.build import logger_of
from edgeseg.runtimes.tensorrt.label_kernel import LabelKernel, Labelling
from edgeseg.runtimes.tensorrt.session import EngineSession
from tests.runtimes.bundles import make_tiny_bundle
from tests.runtimes.fakes import FakeTensorRT, fake_tensorrt

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def few(monkeypatch: Patch) -> None:
    """Few shapes and small sizes, so that the fast tests are fast."""
    monkeypatch.setattr(checks, "driver_checks", functools.partial(driver_checks, cases=12, repeat=2))
    monkeypatch.setattr(driver_module, "_COPIED", 1 << 16)
    monkeypatch.setattr(driver_module, "_TIMED", (64, 128))
    monkeypatch.setattr(driver_module, "_CYCLES", 6)
    monkeypatch.setattr(engine_module, "_WARM_UP", 1)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path, targets=("ort", "trt"), align_corners=True)


def check_gpu(bundles: list[Path], *, save: Path | None = None, told: Any = None, **settings: Any) -> GpuCheck:
    """The check, with settings by name."""
    tell = told or (lambda name, finding: None)
    return checks.check_gpu(bundles, GpuCheckSettings(**settings), save=save, told=tell)


def statuses(found: GpuCheck, name: str) -> dict[str, str]:
    return {finding.check: finding.status for finding in found.findings[name].found}


def told(found: GpuCheck, name: str, check: str) -> str:
    return next(finding.told for finding in found.findings[name].found if finding.check == check)


def test_all_is_checked_and_the_file_is_whole_after_each(
    tmp_path: Path, tensorrt: FakeTensorRT, bundle: Bundle
) -> None:
    file, seen = tmp_path / "found.json", list[int]()

    def count(name: str, finding: Finding) -> None:
        if file.exists():
            data = json.loads(file.read_text())
            seen.append(len(data["driver"]) + sum(len(each["findings"]) for each in data["bundles"]))

    found = check_gpu([bundle.path], repeat=2, save=file, told=count)
    assert found.line().startswith("Fake A, sm_87: passed (24 passed)"), found.line()
    assert (found.verdict, found.exit_code) == ("passed", 0)
    found.check()
    assert seen == list(range(1, 24))
    data = json.loads(file.read_text())
    (one,) = data["bundles"]
    assert (data["kind"], data["verdict"], one["session"]["engine"]) == (checks.KIND, "passed", "tensorrt 10.3.0")
    figures = {each["check"]: each["figures"] for each in one["findings"]}
    assert figures["labels and logits"]["differing"] == 0
    assert figures["labels of the kernel"] == {"input size": 0, "720x1280": 0, "letterboxed": 0}
    assert figures["open with no plan"]["built"]
    assert figures["open with no plan"]["plan_bytes"] > 100
    assert figures["times"]["engine"]["queued"] == pytest.approx(1.5)
    assert figures["layers"]["ms_by_type"] == pytest.approx({"fp16": 0.25, "fp32": 1.25})
    assert figures["layers"]["device_memory_bytes"] == 12345
    assert one["after"]["gpus"] == one["before"]["gpus"]
    assert tensorrt.calls.count("build") == 2  # the plan, and one that tells of its layers
    assert "Fake A" in [gpu["name"] for gpu in data["machine"]["gpu_details"]]


def test_trt_rtx_is_checked_too(tmp_path: Path, fake_gpu: ctypes.CDLL, monkeypatch: Patch) -> None:
    module, record = fake_tensorrt(version="1.7.1", name="tensorrt_rtx_bindings", driver=fake_gpu)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", module)
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt-rtx"))
    found = check_gpu([bundle.path], target="trt-rtx", repeat=1)
    logger_of.cache_clear()
    assert found.verdict == "passed", found.findings[str(bundle.path)].found
    assert "no TensorRT-RTX engine" in told(found, str(bundle.path), "open with no plan")
    assert record.calls.count("build") == 2


@pytest.mark.parametrize("size", [1, 2])
def test_bundles_of_several_precisions_have_their_budgets(tmp_path: Path, tensorrt: FakeTensorRT, size: int) -> None:
    paths = [make_tiny_bundle(tmp_path / str(i), targets=("ort", "trt"), seed=i).path for i in range(size)]
    tensorrt.poison = 300.0
    found = check_gpu(paths, repeat=1)
    assert [statuses(found, str(path))["labels and logits"] for path in paths] == ["failed"] * size
    assert "(1.0e-03 is allowed)" in told(found, str(paths[0]), "labels and logits")
    found = check_gpu(paths, repeat=1, limits=Budget(0.0, 9.0))
    assert {statuses(found, str(path))["labels and logits"] for path in paths} == {"passed"}


def test_bundles_of_one_name_are_kept_apart(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    """The usual case: a folder per precision."""
    first, second = (make_tiny_bundle(tmp_path / word, targets=("ort", "trt")).path for word in ("fp32", "fp16"))

    def heal(name: str, finding: Finding) -> None:
        tensorrt.poison = 300.0 if name != str(second) else None

    found = check_gpu([first, second], repeat=1, told=heal, save=tmp_path / "a.json")
    assert statuses(found, str(first))["repeatable"] == "passed"
    assert statuses(found, str(first))["labels and logits"] == "failed"
    assert statuses(found, str(second))["other pictures"] == "passed"
    assert found.verdict == "failed"
    assert len(json.loads((tmp_path / "a.json").read_text())["bundles"]) == 2
    with pytest.raises(UsageError, match="named twice"):
        check_gpu([first, first])


@pytest.mark.usefixtures("fake_gpu")
def test_the_driver_alone_needs_no_tensorrt(monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(checks, "driver_checks", functools.partial(driver_checks, cases=60))
    found = check_gpu([])
    assert (found.verdict, len(found.findings[""].found)) == ("passed", 11)
    assert found.findings[""].found[6].figures["cases"] == 60


def wrong_labels(monkeypatch: Patch) -> None:
    take = Labelling.take

    def wrong(self: Labelling) -> Any:
        made = take(self)
        made[-1].flat[-1] ^= 1
        return made

    monkeypatch.setattr(Labelling, "take", wrong)


def stale_graph(monkeypatch: Patch) -> None:
    launch, count = cuda.Graph.launch, [0]

    def once(self: cuda.Graph, stream: cuda.Stream) -> None:
        count[0] += 1
        if count[0] == 1:
            launch(self, stream)

    monkeypatch.setattr(cuda.Graph, "launch", once)


def silent_nan(monkeypatch: Patch) -> None:
    labels = LabelKernel.labels

    def silent(self: LabelKernel, logits: Any, picture: int, size: Any, *more: Any) -> Any:
        try:
            return labels(self, logits, picture, size, *more)
        except EdgesegError:
            return np.zeros(size, np.uint8)

    monkeypatch.setattr(LabelKernel, "labels", silent)


def leaking(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cuda.Buffer, "close", lambda self: None)
    monkeypatch.setattr(driver_module, "GROWTH", 0)


def kept_context(monkeypatch: Patch) -> None:
    current = cuda.Device.current

    @contextmanager
    def kept(self: cuda.Device) -> Iterator[None]:
        with current(self):
            yield
        if threading.current_thread() is not threading.main_thread():
            drivers.driver().call("cuCtxPushCurrent_v2", self._context)

    monkeypatch.setattr(cuda.Device, "current", kept)


def no_words(monkeypatch: Patch) -> None:
    monkeypatch.setattr(drivers.Driver, "words", lambda self, status: "unknown error (218)")


def changed_copies(monkeypatch: Patch) -> None:
    wait = cuda.Stream.wait

    def early(self: cuda.Stream) -> None:
        if threading.current_thread() is not threading.main_thread():
            wait(self)

    monkeypatch.setattr(cuda.Stream, "wait", early)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (wrong_labels, "labels of the kernel"),
        (wrong_labels, "mapped memory"),
        (stale_graph, "graph of a frame"),
        (silent_nan, "NaN is told"),
        (leaking, "open and close"),
        (kept_context, "contexts"),
        (no_words, "words of errors"),
        (changed_copies, "copies there and back"),
    ],
)
def test_what_is_wrong_with_the_driver_or_kernel_fails(
    fake_gpu: ctypes.CDLL, monkeypatch: Patch, fault: Callable[[Patch], None], check: str
) -> None:
    with monkeypatch.context() as patch:
        fault(patch)
        found = check_gpu([])
    assert statuses(found, "")[check] == "failed", found.findings[""].found
    assert (found.verdict, found.exit_code) == ("failed", 4)
    fake_gpu.fake_flush(None)
    fake_gpu.fake_forget()


def test_memory_that_should_not_be_there_fails(fake_gpu: ctypes.CDLL) -> None:
    device = cuda.open_device()
    device.gpu = replace(device.gpu, memory=16)
    by_name = {name: check for name, _, check in driver_checks(device)}
    assert not by_name["out of memory"]().passed
    assert fake_gpu.fake_live() == 0


def other_logits(monkeypatch: Patch, when: Callable[[int], bool]) -> None:
    """Add to the logits of the runs for which `when` says so, given their number."""
    original, count = EngineSession._run, [0]

    def noisy(self: EngineSession, image: Any, names: tuple[str, ...]) -> dict[str, Any]:
        made = original(self, image, names)
        count[0] += 1
        if when(count[0]):
            made["logits"] = made["logits"] + 1e-4
        return made

    monkeypatch.setattr(EngineSession, "_run", noisy)


def not_repeatable(monkeypatch: Patch) -> None:
    other_logits(monkeypatch, lambda number: number % 2 == 1)


def wrong_in_threads(monkeypatch: Patch) -> None:
    other_logits(monkeypatch, lambda _: threading.current_thread() is not threading.main_thread())


def mixed_up(monkeypatch: Patch) -> None:
    start, first = EngineSession.start, list[Any]()

    def mixed(self: EngineSession, image: Any, names: Any = None) -> Any:
        first.append(start(self, image, names))
        return first[0]

    monkeypatch.setattr(EngineSession, "start", mixed)


def always_built(monkeypatch: Patch) -> None:
    monkeypatch.setattr(plan_cache, "_read", lambda *_: (None, "the plan was damaged and was rebuilt"))


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        (wrong_labels, {"labels of the kernel"}),
        (leaking, {"open, run, close"}),
        (not_repeatable, {"repeatable"}),
        (wrong_in_threads, {"threads", "two sessions at once"}),
        (mixed_up, {"frames under way"}),
        (always_built, {"open again"}),
    ],
)
def test_what_is_wrong_with_an_engine_fails(
    tensorrt: FakeTensorRT,
    fake_gpu: ctypes.CDLL,
    bundle: Bundle,
    monkeypatch: Patch,
    fault: Callable[[Patch], None],
    failing: set[str],
) -> None:
    with monkeypatch.context() as patch:
        fault(patch)
        found = check_gpu([bundle.path], repeat=1)
    failed = {check for check, status in statuses(found, str(bundle.path)).items() if status == "failed"}
    assert failing <= failed, found.findings[str(bundle.path)].found
    assert found.exit_code == 4
    assert tensorrt.calls.count("build") > 0
    fake_gpu.fake_forget()


def test_logits_that_are_no_numbers_fail(tensorrt: FakeTensorRT, bundle: Bundle) -> None:
    tensorrt.poison = float("nan")
    found = statuses(check_gpu([bundle.path], repeat=1), str(bundle.path))
    assert (found["labels and logits"], found["other pictures"]) == ("failed", "failed")


def test_an_engine_that_does_not_open_leaves_the_rest_out(tensorrt: FakeTensorRT, bundle: Bundle) -> None:
    tensorrt.refuse.add("build")
    found = check_gpu([bundle.path], repeat=1)
    kinds = statuses(found, str(bundle.path))
    assert kinds.pop("open with no plan") == "failed"
    assert set(kinds.values()) == {"left out"}
    assert "it needs 'open with no plan', which failed" in told(found, str(bundle.path), "layers")


def test_a_second_build_is_left_out_where_the_first_took_too_long(
    tensorrt: FakeTensorRT, bundle: Bundle, monkeypatch: Patch
) -> None:
    original = engine_module.EngineCheck._cold

    def slow(self: engine_module.EngineCheck) -> Any:
        outcome = original(self)
        self._build_seconds = 1e6
        return outcome

    monkeypatch.setattr(engine_module.EngineCheck, "_cold", slow)
    found = check_gpu([bundle.path], repeat=1)
    assert (statuses(found, str(bundle.path))["layers"], found.verdict) == ("left out", "incomplete")
    assert tensorrt.calls.count("build") == 1


def test_what_the_package_lacks_is_absent_and_no_fault(
    tensorrt: FakeTensorRT, bundle: Bundle, monkeypatch: Patch
) -> None:
    monkeypatch.delattr(sys.modules["tensorrt"], "EngineInspector")
    found = check_gpu([bundle.path], repeat=1)
    assert (statuses(found, str(bundle.path))["layers"], found.verdict) == ("absent", "passed")
    assert "build" in tensorrt.calls


def test_what_there_is_no_time_for_is_left_out_and_did_not_pass(tensorrt: FakeTensorRT, bundle: Bundle) -> None:
    found = check_gpu([bundle.path], repeat=1, budget=15.0)
    kinds = statuses(found, "")
    assert (kinds["open and close"], kinds["labels of the kernel"], kinds["events"]) == (
        "left out",
        "left out",
        "passed",
    )
    assert "it may take 20 s and" in told(found, "", "open and close")
    assert (found.verdict, found.exit_code) == ("incomplete", 9)
    assert "incomplete: nothing failed, and not all was checked" in found.line()
    assert tensorrt.calls.count("build") <= 2


def test_the_watch_ends_what_runs_and_says_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left, ended, file = list[int](), threading.Event(), tmp_path / "found.json"
    found = GpuCheck("Fake A", describe_machine(tmp_path))
    running = Run(found, 1e9, file, lambda name, finding: None)
    (tmp_path / "plans").mkdir()

    def leave(code: int) -> None:
        left.append(code)
        ended.set()

    watch = Watch(0.05, running, ["second.edgeseg"], tmp_path / "plans", leave)
    endless: list[Any] = [("endless", 0, lambda: _wait(ended)), ("never", 0, lambda: _wait(ended))]
    running.start("first.edgeseg").run(endless)
    watch.close()
    assert left == [9]
    assert not (tmp_path / "plans").exists()
    assert capsys.readouterr().err.startswith("edgeseg: Fake A: incomplete")
    first, second = ({f["check"]: f["status"] for f in b["findings"]} for b in json.loads(file.read_text())["bundles"])
    assert first["never"] == "left out"
    assert second == {"all": "left out"}


def _wait(ended: threading.Event) -> Any:
    assert ended.wait(30)
    raise EdgesegError("ended")


@pytest.mark.usefixtures("fake_gpu")
def test_a_gpu_that_the_target_does_not_know_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    with pytest.raises(TargetUnavailableError, match=r"does not know Fake A, sm_87.*use the target trt"):
        check_gpu([bundle.path], target="trt-rtx")
    old = replace(cuda.list_gpus()[0], compute_capability="7.2")
    with pytest.raises(TargetUnavailableError, match=r"older than compute capability 7.5.*use the target ort"):
        checks._check_known("trt", old)


def test_layers_are_read_of_engines_that_tell_and_of_those_that_name_them_alone() -> None:
    assert [layer.name for layer in layers_of('{"Layers": ["a", "b"]}')] == ["a", "b"]
    told = {"Name": "c", "LayerType": "conv", "Outputs": [{"Format/Datatype": "Thirty-two wide Int8 format"}]}
    (layer,) = layers_of(json.dumps({"Layers": [told]}))
    assert (layer.kind, layer.type) == ("conv", "int8")


@pytest.mark.usefixtures("fake_gpu")
def test_the_command_ends_with_the_verdicts_code(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.json"
    assert run(["gpu-check", "--driver-only", "--save", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Fake A, sm_87: passed (11 passed)"
    assert json.loads(file.read_text())["verdict"] == "passed"
    assert run(["gpu-check", "--driver-only", "--budget", "12"]) == 9
    assert capsys.readouterr().err.startswith("edgeseg: Fake A, sm_87: incomplete")
    wrong_labels(monkeypatch)
    assert run(["gpu-check", "--driver-only"]) == 4
    assert "edgeseg: Fake A, sm_87: failed" in capsys.readouterr().err


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_one_sentence_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gpu-check", "--driver-only"]) == 6
    assert "no NVIDIA driver" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [(), ("x.edgeseg", "--driver-only"), ("x.edgeseg", "--target", "ort"), ("x.edgeseg", "--min-agreement", "0.9")],
)
def test_what_cannot_be_asked_is_told(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gpu-check", *words]) == 2
    assert capsys.readouterr().err.count("edgeseg: ") == 1


@pytest.mark.gpu
def test_the_driver_of_this_machine(monkeypatch: Patch) -> None:
    try:
        cuda.open_device()
    except EdgesegError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(checks, "driver_checks", driver_checks)
    found = check_gpu([])
    assert found.verdict == "passed", found.findings[""].found
