"""Files that attack, lie or are something else: one sentence, no code run, no memory taken. One test per find."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import _utils, nn

from edgeseg.errors import CheckpointError
from edgeseg.models.checkpoints import load_state, open_checkpoint, read_checkpoint


def _refused(file: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def _write(tmp_path: Path, content: bytes, name: str = "w.pdparams") -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


# --- pickles


def _text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


FLAGLESS = b"(K\x03" + _text("|") + b"NNNK\x08K\x08K\x00tb"  # says that the bytes may be taken for pointers
OBJECTS = b"cnumpy\ndtype\n(" + _text("O8") + b"K\x00K\x01tR" + FLAGLESS
POINTER = b"B\x08\x00\x00\x00" + struct.pack("<Q", 0x4141414141414141)
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
SEGFAULTS = {
    "objects_of_the_files_choice": ARRAY + b"(K\x01(K\x01t" + OBJECTS + b"\x89" + POINTER + b"tb",
    "a_type_with_a_state_of_the_files_choice": ARRAY
    + b"(K\x01(K\x01tcnumpy\ndtype\n(" + _text("f8") + b"K\x00K\x01tR(K\x03" + _text("|") + b"NNNK\x08K\x01K?tb\x89"
    + POINTER + b"tb",
    "a_number_of_objects": b"cnumpy.core.multiarray\nscalar\n(" + OBJECTS + POINTER + b"tR",
}  # fmt: skip


@pytest.mark.parametrize("attack", SEGFAULTS)
def test_numpy_states_do_not_end_the_process(tmp_path: Path, attack: str) -> None:
    file = _write(tmp_path, b"\x80\x04}" + _text("a") + SEGFAULTS[attack] + b"s.")
    code = (
        "import sys\nfrom edgeseg.errors import CheckpointError\n"
        "from edgeseg.models.checkpoints import read_checkpoint\n"
        "try:\n    print({key: repr(value) for key, value in read_checkpoint(sys.argv[1]).items()})\n"
        "except CheckpointError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-300:]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([object()]), "an array of type O8"),
        (np.array(["2020-01-01"], "datetime64[D]"), "an array of type M8"),
        (np.zeros(2, [("x", "f4")]), "an array of structures"),
        (np.array(["a"]), "an array of type U1"),
        (np.zeros(2, np.longdouble), "an array of type f16"),
    ],
)
def test_arrays_that_are_no_numbers(tmp_path: Path, array: Any, message: str) -> None:
    _refused(
        _write(tmp_path, pickle.dumps({"a": array}, 4)), f"{message}, 'a', which edgeseg does not take; save plain"
    )


def _endless_key() -> bytes:
    """A dict with a tuple of tuples as key, whose hash takes 2 to the 64th steps."""
    return b"\x80\x04})" + b"2\x86" * 64 + b"Ns."


def _deep_key() -> bytes:
    """A dict whose key is a tuple a million deep, which hashing recurses into."""
    return b"\x80\x04})" + b"\x85" * 1_000_000 + b"Ns."


BOMBS = {
    "a key that is hashed forever": (_endless_key(), "holds no tensors"),
    "a key a million deep": (_deep_key(), "holds no tensors"),
    "a memo of four billion": (b"\x80\x04}r\xff\xff\xff\xff.", "holds no tensors"),
    "a list 900,000 deep": (b"\x80\x04" + b"]" * 900_001 + b"a" * 900_000 + b".", "holds no tensors"),
    "a text of four gigabytes": (b"\x80\x04X\xff\xff\xff\xff.", "states 4294967295 bytes where 1 are left"),
    "a frame beyond the file": (b"\x80\x04\x95" + b"\xff" * 8 + b"}.", "longer than the file"),
    "a number of a gigabyte": (b"\x80\x04\x8b" + struct.pack("<i", 1 << 30) + b".", "a number of 1073741824 bytes"),
    "three million steps": (b"\x80\x04" + b"N0" * 1_500_000 + b"}.", "more than 2,000,000 steps"),
    "an extension": (b"\x80\x04\x82\x01.", "uses extension codes"),
    "a buffer elsewhere": (b"\x80\x05\x97.", "uses buffers outside of it"),
    "one text made bytes many times": (
        b"\x80\x02}" + _text("x" * 10_000) + b"q\x000" + b"c_codecs\nencode\nh\x00" * 0
        + b"".join(b"c_codecs\nencode\n(h\x00" + _text("latin1") + b"tR0" for _ in range(20)) + b".",
        "turns one text into bytes many times",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", BOMBS)
def test_bombs(tmp_path: Path, attack: str) -> None:
    content, message = BOMBS[attack]
    _refused(_write(tmp_path, content), message)


def test_arrays_that_share_their_bytes_are_not_copied_without_end(tmp_path: Path) -> None:
    kind = b"cnumpy\ndtype\n(" + _text("u1") + b"K\x00K\x01tR"
    data = b"B" + struct.pack("<I", 1 << 16) + bytes(1 << 16)
    head = b"\x80\x04" + data + b"q\x000" + kind + b"q\x010}"
    entries = b"".join(
        _text(f"k{at}") + ARRAY + b"(K\x01J" + struct.pack("<i", 1 << 16) + b"\x85h\x01\x89h\x00tbs" for at in range(99)
    )
    _refused(_write(tmp_path, head + entries + b"."), "the same bytes many times")


@pytest.mark.parametrize(
    "name",
    ["os.system", "posix.system", "subprocess.Popen", "builtins.eval", "__builtin__.exec", "operator.attrgetter",
     "importlib.import_module", "builtins.exec.__call__"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".pdparams", ".pth"])
def test_names_that_only_attacks_say(tmp_path: Path, name: str, suffix: str) -> None:
    module, word = name.split(".", 1)
    content = b"\x80\x04" + _text(module) + _text(word) + b"\x93" + _text("true") + b"\x85R."
    _refused(_write(tmp_path, content, f"w{suffix}"), f"a pickled {name}, which could run code and is not loaded")


def test_a_container_of_itself(tmp_path: Path) -> None:
    state: dict[str, Any] = {"a": np.ones(1)}
    state["model"] = state
    assert read_checkpoint(_write(tmp_path, pickle.dumps(state, 4)))["a"].tolist() == [1.0]


def test_a_pickled_network_is_told(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", r"found a pickled torch\.nn\.modules\.linear\.Linear\) and .* expected a state dict")


def test_a_name_of_a_megabyte(tmp_path: Path) -> None:
    _refused(_write(tmp_path, pickle.dumps({"x" * 1_000_000: np.ones(1)}, 4)), "name has 1,000,000 characters")


def test_terminal_escapes_are_not_shown(tmp_path: Path) -> None:
    file = _write(tmp_path, b"\x80\x04c\x1b[2Jos\nsystem\n)R.", "\x1b[2J.pth")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(file)
    assert "\x1b" not in str(caught.value)


# --- tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("storage", "size", (2, 2)), "reaches beyond its storage"),
        (("storage", "offset", 1), "reaches beyond its storage"),
        (("storage", "offset", -1), "storage is none"),
        (("storage", "stride", (2,)), "reaches beyond its storage"),
        (("storage", "stride", (-1,)), "strides that cannot be"),
        (("storage", "size", (1 << 40,)), "sides that cannot be"),
        (("storage", "stride", (0,)), ""),
    ],
)
def test_views_outside_of_their_storage(tmp_path: Path, change: tuple[str, str, Any], message: str) -> None:
    parts: dict[str, Any] = {"offset": 0, "size": (3,), "stride": (1,), **{change[1]: change[2]}}
    if change[1] == "size" and len(change[2]) == 2:
        parts["stride"] = (2, 1)
    file = _handmade(tmp_path, parts["offset"], parts["size"], parts["stride"])
    if message:
        _refused(file, message)
    else:
        assert read_checkpoint(file)["a"].tolist() == [0.0, 0.0, 0.0]


def test_a_small_storage_does_not_become_a_large_tensor(tmp_path: Path) -> None:
    _refused(_handmade(tmp_path, 0, (1 << 30, 1 << 20), (0, 0)), "is larger than the file")


class _Note:
    """Pickles as a tensor over storage 0 with the parts given."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return _utils._rebuild_tensor_v2, (_Storage(), *self.parts, False, {})


class _Storage:
    pass


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", 3) if isinstance(obj, _Storage) else None


def _handmade(tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Path:
    content = io.BytesIO()
    _Pickler(content, 2).dump({"a": _Note(offset, size, stride)})
    entries = {"w/data.pkl": content.getvalue(), "w/data/0": np.arange(3, dtype=np.float32).tobytes()}
    return _zip(tmp_path, entries)


def _zip(tmp_path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(tmp_path / "w.pth", "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return tmp_path / "w.pth"


def test_the_handmade_file_is_what_torch_reads(tmp_path: Path) -> None:
    assert read_checkpoint(_handmade(tmp_path, 0, (3,), (1,)))["a"].tolist() == [0.0, 1.0, 2.0]


def _quantised() -> Any:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_quantised, "a quantised tensor, 'a'"),
        (lambda: torch.ones(3).to_sparse(), "a sparse tensor, 'a'"),
        (lambda: torch.empty(3, device="meta"), "a tensor without values, 'a'"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_are_not_taken(tmp_path: Path, make: Callable[[], Any], message: str) -> None:
    torch.save({"a": make()}, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", message)
    torch.save({"state_dict": {"a": torch.ones(2)}, "calibration": make()}, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth")["a"].tolist() == [1.0, 1.0]


def test_complex_weights_do_not_lose_their_imaginary_part(tmp_path: Path) -> None:
    network = nn.Linear(2, 2, bias=False)
    with pytest.raises(CheckpointError, match=r"complex numbers \(weight\) where a network has real ones"):
        load_state(network, {"weight": torch.ones(2, 2, dtype=torch.complex64)}, what="a network")


# --- zip files


def test_a_zip_bomb(tmp_path: Path) -> None:
    _refused(_zip(tmp_path, {"w/data.pkl": bytes(1 << 28)}, zipfile.ZIP_DEFLATED), "that unpacks to 268,435,456")


def test_a_zip_whose_entry_unpacks_to_more_than_it_states(tmp_path: Path) -> None:
    file = _zip(tmp_path, {"w/data.pkl": pickle.dumps({"a": 1}) + bytes(5000)}, zipfile.ZIP_DEFLATED)
    content, size = file.read_bytes(), len(pickle.dumps({"a": 1})) + 5000
    assert content.count(struct.pack("<I", size)) == 2
    file.write_bytes(content.replace(struct.pack("<I", size), struct.pack("<I", 100)))
    _refused(file, "another size than it states")


def _lied(content: bytes, signature: bytes, at: int, value: bytes) -> bytes:
    place = content.index(signature) + at
    return content[:place] + value + content[place + len(value) :]


@pytest.mark.parametrize(
    ("signature", "at", "value", "message"),
    [
        (b"PK\x03\x04", 18, struct.pack("<I", 7), "another one than its directory lists"),
        (b"PK\x01\x02", 20, struct.pack("<I", 7), "has two sizes"),
        (b"PK\x01\x02", 20, struct.pack("<2I", 1 << 31, 1 << 31), "another one than its directory|unpacks to"),
        (b"PK\x01\x02", 8, struct.pack("<H", 1), "encrypted entry"),
        (b"PK\x01\x02", 10, struct.pack("<H", 14), "neither stored nor deflated"),
        (b"PK\x01\x02", 42, struct.pack("<I", 1 << 30), "lies outside of it"),
        (b"PK\x05\x06", 16, struct.pack("<I", 1 << 30), "directory lies outside of it"),
        (b"PK\x05\x06", 10, struct.pack("<H", 9), "another length than it states"),
    ],
)
def test_zips_that_lie(tmp_path: Path, signature: bytes, at: int, value: bytes, message: str) -> None:
    file = _handmade(tmp_path, 0, (3,), (1,))
    file.write_bytes(_lied(file.read_bytes(), signature, at, value))
    _refused(file, message)


def test_overlapping_entries(tmp_path: Path) -> None:
    file = _zip(tmp_path, {"w/data.pkl": b"x" * 100, "w/data.pkL": b"x" * 100})
    content = file.read_bytes().replace(b"w/data.pkL", b"w/data.pkl")
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    file.write_bytes(content[: second + 42] + bytes(4) + content[second + 46 :])
    _refused(file, "entries overlap")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", b"}.")
        archive.writestr("w/data.pkl", b"].")
    _refused(tmp_path / "w.pth", "two entries of one name")


def test_a_flipped_bit_in_a_tensor(tmp_path: Path) -> None:
    torch.save({"a": torch.full((64,), 3.0)}, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[content.index(struct.pack("<2f", 3.0, 3.0)) + 8] ^= 1
    (tmp_path / "w.pth").write_bytes(content)
    _refused(tmp_path / "w.pth", "checksum")


def test_a_stream_whose_storage_is_larger_than_the_file(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pth").read_bytes()
    lied = content.replace(b"K\x03N", b"\x8a\x05\x00\x00\x00\x00\x10N", 1)
    assert lied != content
    (tmp_path / "w.pth").write_bytes(lied)
    _refused(tmp_path / "w.pth", "larger than the file")


# --- other kinds of files


def _script(path: Path) -> None:
    entries = {"m/code/x.py": b"", "m/constants.pkl": b"", "m/data.pkl": b"}."}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a Git LFS pointer .* run git lfs pull",
        ),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "a web page .* copy it again"),
        (b'{"error": "not found"}', "is a text .* copy it again"),
        (b"\x1f\x8b\x08\x00\x00", "a gzip archive; unpack it"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
        (b"\x00" * 257 + b"ustar\x0000" + bytes(300), "a tar archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    for suffix in (".pth", ".pdparams"):
        _refused(_write(tmp_path, content, f"w{suffix}"), message)


def test_archives_that_are_something_else(tmp_path: Path) -> None:
    _script(tmp_path / "w.pt")
    _refused(tmp_path / "w.pt", r"a TorchScript archive, .*torch\.jit\.load\(file\)")
    _refused(_zip(tmp_path, {"m/archive_format": b"pt2"}), "an exported program")
    _refused(_zip(tmp_path, {"a.npy": b""}), "numpy arrays")
    _refused(_zip(tmp_path, {"best.pth": b""}), "unpack it and give the weights file in it")


def test_what_torch_itself_writes_besides_checkpoints(tmp_path: Path) -> None:
    network = nn.Conv2d(3, 2, 1).eval()
    picture = torch.zeros(1, 3, 4, 4)
    torch.jit.trace(network, picture).save(tmp_path / "traced.pth")  # type: ignore[no-untyped-call]
    torch.jit.script(network).save(tmp_path / "scripted.pt")  # type: ignore[no-untyped-call]
    for name in ("traced.pth", "scripted.pt"):
        _refused(tmp_path / name, r"a TorchScript archive, .*torch\.jit\.load\(file\)")
    for name in ("program.pt2", "program.pth"):
        with (tmp_path / name).open("wb") as stream:
            torch.export.save(torch.export.export(network, (picture,)), stream)
        _refused(tmp_path / name, r"an exported program \(\.pt2\).*torch\.export\.load\(file\)")


def test_a_folder_and_paths_that_cannot_be(tmp_path: Path) -> None:
    _refused(tmp_path, "no checkpoint at .* is a folder")
    _refused(tmp_path / "a\0b.pth", "no checkpoint at")
    _refused(tmp_path / ("x" * 5000), "checkpoint")


# --- safetensors and ONNX


def _safe(tmp_path: Path, header: object, data: bytes = bytes(12), size: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(text) if size is None else size) + text + data
    return _write(tmp_path, content, "w.safetensors")


GOOD: dict[str, Any] = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": {**GOOD, "shape": [4]}}, "other bytes than its shape"),
        ({"a": {**GOOD, "shape": [1 << 62, 1 << 62]}}, "sides that cannot be"),
        ({"a": {**GOOD, "shape": [float("inf")]}}, "sides that cannot be"),
        ({"a": {**GOOD, "shape": "3"}}, "shape is none"),
        ({"a": {**GOOD, "data_offsets": [0, 1 << 60]}}, "lies outside of the file"),
        ({"a": {**GOOD, "data_offsets": [-4, 8]}}, "lies outside of the file"),
        ({"a": GOOD, "b": GOOD}, "overlap"),
        ({"a": {**GOOD, "shape": [2], "data_offsets": [4, 12]}}, "gaps"),
        ({"a": {**GOOD, "shape": [2], "data_offsets": [0, 8]}}, "4 bytes more than its tensors"),
        ({"a": {**GOOD, "dtype": "F4"}}, "a tensor of type F4, 'a'"),
        ({"a": 3}, "has no place"),
        ([1], "no whole|not a whole"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"[" * 100_000, "not a whole"),
        (b'{"a":' * 100_000, "not a whole"),
    ],
)
def test_safetensors_headers_that_lie(tmp_path: Path, header: object, message: str) -> None:
    _refused(_safe(tmp_path, header), message)


def test_a_safetensors_header_beyond_the_file(tmp_path: Path) -> None:
    assert read_checkpoint(_safe(tmp_path, {"a": GOOD}))["a"].tolist() == [0.0, 0.0, 0.0]
    _refused(_safe(tmp_path, {"a": GOOD}, size=1 << 62), "not a whole")


def test_onnx_values_in_another_file_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(12))
    tensor = onnx.TensorProto(name="stolen", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret")
    graph = helper.make_graph([], "g", [], [], initializer=[tensor])
    file = _write(tmp_path, helper.make_model(graph).SerializeToString(), "w.onnx")
    _refused(file, "keeps the values of 'stolen' in another file, which is not read")


@pytest.mark.parametrize("dims", [[4], [1 << 40], [-3], [1 << 62, 4], []])
def test_onnx_shapes_that_lie(tmp_path: Path, dims: list[int]) -> None:
    tensor = onnx.TensorProto(name="a", data_type=1, dims=dims, raw_data=bytes(12))
    graph = helper.make_graph([], "g", [], [], initializer=[tensor])
    _refused(_write(tmp_path, helper.make_model(graph).SerializeToString(), "w.onnx"), "other bytes|cannot be")


def test_an_onnx_file_of_millions_of_empty_parts(tmp_path: Path) -> None:
    parts = b"\x2a\x00" * 2_000_000
    size = struct.pack("<I", len(parts))
    length, value = b"", int.from_bytes(size, "little")
    while value:
        length += bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
        value >>= 7
    _refused(_write(tmp_path, b"\x3a" + length + parts, "w.onnx"), "initialiser|more than 1,000,000 parts")


def test_what_was_skipped_is_short(tmp_path: Path) -> None:
    entries = b"".join(b"c" + f"m{at}\nC{'x' * 900}\n".encode() + b")R0" for at in range(200))
    good = pickle.dumps({"a": np.ones(1)}, 2)[2:]
    found = open_checkpoint(_write(tmp_path, b"\x80\x02" + entries + good))
    assert len(found.skipped) == 50
    assert max(map(len, found.skipped)) <= 100
