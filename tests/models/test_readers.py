"""What the readers give is what PyTorch, safetensors, numpy and ONNX give for the same files, bit by bit."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgeseg.models.checkpoints import open_checkpoint, read_checkpoint
from edgeseg.models.readers.machine import Machine
from edgeseg.models.readers.names import Names
from edgeseg.models.readers.stream import Stream

TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
)  # fmt: skip


def _random(dtype: torch.dtype, *shape: int) -> Tensor:
    count = int(np.prod(shape)) * dtype.itemsize
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def _bits(tensor: Tensor) -> bytes:
    plain = tensor.resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def _equal(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(got) == list(wanted)
    for key, value in wanted.items():
        assert (got[key].dtype, got[key].shape) == (value.dtype, value.shape), key
        assert got[key].stride() == value.stride(), key
        assert _bits(got[key]) == _bits(value), key


def _kinds() -> dict[str, Tensor]:
    base = _random(torch.float32, 6, 8)
    state = {str(dtype): _random(dtype, 3, 5) for dtype in TYPES}
    return {
        **state,
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "base": base,
        "part": base[1:4, 2:5],
        "turned": base.t(),
        "stepped": base[::2, ::3],
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "conjugated": _random(torch.complex64, 3).conj(),
        "negated": torch.randn(3, dtype=torch.complex64).conj().imag,
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "infinite": torch.tensor([float("inf"), float("nan"), -0.0]),
    }


OLD = {"uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_equal_to_torch_load(tmp_path: Path, new: bool) -> None:
    state = {key: value for key, value in _kinds().items() if new or key.removeprefix("torch.") not in OLD}
    file = tmp_path / "w.pth"
    torch.save(state, file, _use_new_zipfile_serialization=new)
    wanted = torch.load(file, weights_only=True)
    got = read_checkpoint(file)
    _equal(got, {key: value.detach() for key, value in wanted.items()})
    assert got["base"].untyped_storage().data_ptr() == got["turned"].untyped_storage().data_ptr()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_torch_save(tmp_path: Path, protocol: int) -> None:
    state = OrderedDict(a=torch.randn(4))
    torch.save({"state_dict": state}, tmp_path / "w.pth", pickle_protocol=protocol)
    _equal(read_checkpoint(tmp_path / "w.pth"), state)


def _rezipped(source: Path, target: Path, method: int, changed: dict[str, bytes]) -> None:
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w", method) as write:
        for name in read.namelist():
            write.writestr(name, changed.get(name.split("/", 1)[1], read.read(name)))


def test_a_checkpoint_that_was_zipped_again(tmp_path: Path) -> None:
    state = {"a": torch.randn(300, 5), "b": torch.arange(3)}
    torch.save(state, tmp_path / "w.pth")
    _rezipped(tmp_path / "w.pth", tmp_path / "again.pth", zipfile.ZIP_DEFLATED, {})
    _equal(read_checkpoint(tmp_path / "again.pth"), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.complex64, torch.bfloat16, torch.uint8])
def test_the_other_byte_order(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({"a": _random(dtype, 7)}, tmp_path / "w.pth")
    other = b"big" if sys.byteorder == "little" else b"little"
    _rezipped(tmp_path / "w.pth", tmp_path / "big.pth", zipfile.ZIP_STORED, {"byteorder": other})
    wanted = torch.load(tmp_path / "big.pth")
    assert torch.load(tmp_path / "w.pth")["a"].tolist() != wanted["a"].tolist() or dtype.itemsize == 1
    _equal(read_checkpoint(tmp_path / "big.pth"), wanted)


def test_old_views_of_one_storage(tmp_path: Path) -> None:
    """Files of 2017 name views of a storage; PyTorch still reads them and writes None there."""
    state = {"a": torch.arange(10.0)}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pth").read_bytes()
    view = b"(X\x01\x00\x00\x00vK\x04K\x05t"  # ("v", 4, 5)
    old = content.replace(b"K\nNtq", b"K\n" + view + b"tq", 1)
    assert old != content
    old = old.replace(b"K\x00K\n\x85q", b"K\x00K\x05\x85q", 1)
    assert b"K\x00K\x05\x85q" in old
    (tmp_path / "old.pth").write_bytes(old)
    _equal(read_checkpoint(tmp_path / "old.pth"), torch.load(tmp_path / "old.pth"))


class Meter:
    """Of a training run."""

    def __init__(self) -> None:
        self.history = {"loss": [1.0, 2.0], "self": self}


def test_a_training_run_gives_its_tensors_and_tells_what_was_skipped(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3)}
    run = {
        "state_dict": weights,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "hyper_parameters": argparse.Namespace(path=pathlib.PurePosixPath("data"), sizes={1, 2}),
        "best": np.float64(0.7),
        "log": np.arange(3),
        "objects": np.array([Meter()], dtype=object),
        "when": np.array(["2020-01-01"], "datetime64[D]"),
        "meter": Meter(),
        "counts": defaultdict(list, a=[1]),
        (1, (2, 3)): "a key that is not read",
    }
    for new in (True, False):
        torch.save(run, tmp_path / "w.ckpt", _use_new_zipfile_serialization=new)
        found = open_checkpoint(tmp_path / "w.ckpt")
        _equal(found.state, weights)
        assert "argparse.Namespace" in found.skipped
        assert any(name.endswith(".Meter") for name in found.skipped)


class _Own(Tensor):
    pass


def test_tensors_of_a_class_of_their_own(tmp_path: Path) -> None:
    value = torch.randn(4)
    torch.save({"a": value.as_subclass(_Own)}, tmp_path / "w.pth")
    _equal(read_checkpoint(tmp_path / "w.pth"), {"a": value})


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["f4", ">f4", "f8", "f2", "i8", ">i2", "u1", "?", "c8", "u2"])
def test_numpy_arrays_of_every_protocol(tmp_path: Path, protocol: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    value = (rng.random((3, 4)) * 100).astype(kind)
    state = {"a": value, "turned": value.T, "scalar": np.array(value[0, 0]), "empty": value[:0]}
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(state, protocol))
    got = read_checkpoint(tmp_path / "w.pdparams")
    assert list(got) == list(state)
    for key, array in state.items():
        assert got[key].numpy().dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got[key].numpy(), array)


def test_paddle_pairs_of_name_and_array(tmp_path: Path) -> None:
    value = np.arange(3, dtype=np.float32)
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps({"a": ("linear_0.w_0", value)}, 4))
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "w.pdparams")["a"].numpy(), value)


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(_PLAIN, st.integers(0, 5))
def test_plain_values_are_those_of_pickle(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    got = Machine(Stream(BytesIO(data), len(data)), Names()).load()
    assert got == value
    assert type(got) is type(value)


def test_safetensors_equal_to_the_library(tmp_path: Path) -> None:
    state = {str(dtype): _random(dtype, 3, 5) for dtype in TYPES if dtype is not torch.complex128}
    state |= {"scalar": torch.tensor(2.0), "empty": torch.empty(0, 3)}
    save_file(state, tmp_path / "w.safetensors", metadata={"format": "pt"})
    wanted = load_file(tmp_path / "w.safetensors")
    got = read_checkpoint(tmp_path / "w.safetensors")
    assert got.keys() == wanted.keys()
    _equal(got, {key: wanted[key] for key in got})
    (tmp_path / "w.safetensors").rename(tmp_path / "renamed.pth")
    _equal(read_checkpoint(tmp_path / "renamed.pth"), got)


def _graph(tensors: list[onnx.TensorProto]) -> bytes:
    graph = helper.make_graph([], "g", [], [], initializer=tensors)
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("raw", [True, False])
def test_onnx_initialisers_equal_to_the_library(tmp_path: Path, raw: bool) -> None:
    rng = np.random.default_rng(0)
    tensors = []
    for kind in ("f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"):
        value = (rng.random((2, 3)) * 200 - 100).astype(kind)
        data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        content: Any = value.tobytes() if raw else value.reshape(-1).tolist()
        tensors.append(helper.make_tensor(kind, data_type, value.shape, content, raw=raw))
    (tmp_path / "w.onnx").write_bytes(_graph(tensors))
    got = read_checkpoint(tmp_path / "w.onnx")
    assert list(got) == [tensor.name for tensor in tensors]
    for tensor in tensors:
        wanted = numpy_helper.to_array(tensor)
        assert got[tensor.name].numpy().dtype == wanted.dtype
        np.testing.assert_array_equal(got[tensor.name].numpy(), wanted)


@pytest.mark.parametrize("raw", [True, False])
def test_bfloat16_in_onnx(tmp_path: Path, raw: bool) -> None:
    value = torch.tensor([1.5, -2.0, 0.25], dtype=torch.bfloat16)
    content: Any = value.view(torch.uint8).numpy().tobytes() if raw else value.tolist()
    tensor = helper.make_tensor("a", onnx.TensorProto.BFLOAT16, [3], content, raw=raw)
    (tmp_path / "w.onnx").write_bytes(_graph([tensor]))
    _equal(read_checkpoint(tmp_path / "w.onnx"), {"a": value})


@pytest.mark.real
def test_published_files_give_the_numbers_that_torch_load_gives(real_weights: Path) -> None:
    files = sorted(real_weights.rglob("*.pth"))
    assert len(files) >= 10
    for file in files:
        wanted = torch.load(file, map_location="cpu", weights_only=True)
        got = read_checkpoint(file)
        prefix = "" if got.keys() == wanted.keys() else "module."
        _equal(got, {key.removeprefix(prefix): value for key, value in wanted.items()})
