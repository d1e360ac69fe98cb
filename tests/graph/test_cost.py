"""The cost model: the estimate by hand, the profile in use, and decisions that hang on it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import onnx
import pytest

from edgeseg.graph.cost import graph_cost
from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes import run_passes
from edgeseg.graph.passes.compose import ComposeConvs
from edgeseg.graph.profile import DEFAULT_PROFILE, MachineProfile, active_profile, load_profile, using_profile
from tests.graph.passes.tools import build, feeds, kinds, normal

ROUND = MachineProfile(
    name="round figures",
    threads=1,
    dense=1e9,
    channelwise=1e8,
    interpolation=1e7,
    bandwidth=1e6,
    node_seconds=1.0,
    source="made up",
)
MAP = 4 * 8 * 8
"""Elements of the maps below; four bytes each."""


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ("y = Conv<pads=[1,1,1,1]>(x, w)", MAP * 4 * 9 / 1e9 + 4 * (2 * MAP + 4 * 4 * 9) / 1e6),
        ("y = Conv<group=4, pads=[1,1,1,1]>(x, wd)", MAP * 9 / 1e8 + 4 * (2 * MAP + 4 * 9) / 1e6),
        ("y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)", MAP * 9 / 1e8 + 8 * MAP / 1e6),
        ("y = Sigmoid(x)", MAP / 1e8 + 8 * MAP / 1e6),
        ("y = Relu(x)", 8 * MAP / 1e6),
        ('y = Resize<mode="linear">(x, , k)', MAP * 4 / 1e7 + 4 * (2 * MAP + 4) / 1e6),
        ("y = Reshape(x, s)", 0.0),
    ],
)
def test_the_estimate_is_the_formula(body: str, seconds: float) -> None:
    model = build(
        f"g (float[1,4,8,8] x) => (float[1,4,8,8] y) {{ {body} }}",
        w=normal(4, 4, 3, 3),
        wd=normal(4, 1, 3, 3),
        k=normal(4) * 0 + 1,
        s=(normal(4) * 0 + [1, 4, 8, 8]).astype("int64"),
    )
    assert graph_cost(model, ROUND).seconds == pytest.approx(1.0 + seconds)


def test_the_default_prices_as_before() -> None:
    model = build("g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv(x, w) }", w=normal(4, 4, 1, 1))
    expected = MAP * 4 / 60e9 + 4 * (2 * MAP + 16) / 10e9 + 3e-6
    assert graph_cost(model).seconds == expected


def test_a_profile_holds_within_its_block_and_thread() -> None:
    default = load_profile(DEFAULT_PROFILE)
    assert active_profile() == default
    with using_profile(ROUND):
        assert active_profile() is ROUND
        with using_profile(load_profile("arm-neon")):
            assert active_profile().name == "arm-neon"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(active_profile).result() == default
        assert active_profile() is ROUND
    assert active_profile() == default


def test_a_block_that_fails_leaves_no_profile_behind() -> None:
    with pytest.raises(ZeroDivisionError), using_profile(ROUND):
        raise ZeroDivisionError
    assert active_profile() == load_profile(DEFAULT_PROFILE)


FAST_MEMORY = replace(ROUND, dense=1e8, bandwidth=1e12, node_seconds=1e-9)
SLOW_MEMORY = replace(ROUND, dense=1e15, bandwidth=1e6, node_seconds=1e-9)


def _pair() -> onnx.ModelProto:
    """Two 1x1 convolutions through a narrow map: fewer multiply-accumulates than the one they are together."""
    return build(
        "g (float[1,32,16,16] x) => (float[1,32,16,16] y) { a = Conv(x, w1) y = Conv(a, w2) }",
        w1=normal(8, 32, 1, 1),
        w2=normal(32, 8, 1, 1),
    )


@pytest.mark.parametrize(("profile", "pays"), [(FAST_MEMORY, False), (SLOW_MEMORY, True)])
def test_whether_a_draft_pays_hangs_on_the_profile(profile: MachineProfile, pays: bool) -> None:
    editor = GraphEditor(_pair())
    draft = editor.draft("d")
    draft.op("Conv", [editor.graph.inputs[0], draft.constant(normal(32, 32, 1, 1))], (1, 32, 16, 16))
    with using_profile(profile):
        assert draft.pays([editor.graph.outputs[0]]) == pays


@pytest.mark.parametrize(
    ("profile", "operators"), [(FAST_MEMORY, ["Conv", "Conv"]), (SLOW_MEMORY, ["Conv"])], ids=["computes", "moves"]
)
def test_a_pass_decides_by_the_profile(profile: MachineProfile, operators: list[str]) -> None:
    model = _pair()
    with using_profile(profile):
        rewritten, reports = run_passes(model, [ComposeConvs()], feeds(model))
    assert kinds(rewritten) == operators
    assert [report.modified for report in reports] == [len(operators) == 1]
