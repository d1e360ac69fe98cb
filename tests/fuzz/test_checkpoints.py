"""Mutated and handmade checkpoints, each read in a child process: tensors or one sentence, nothing else, and no code.

The child has a gigabyte above what it needs to start, and writes what became of each file; a crash, a hang or an error
of another kind fails here with the seed that makes the file again.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOM = 1 << 30
SECONDS = 3.0
LONGEST = 600

Maker = Callable[[random.Random, "Bases"], tuple[str, bytes]]


# --- whole files that are then changed


class Bases:
    """Small files of every format, and the file that must never appear."""

    def __init__(self, canary: str) -> None:
        import numpy as np
        import onnx
        import torch
        from onnx import helper, numpy_helper
        from safetensors.torch import save

        torch.manual_seed(0)
        self.canary = canary
        state = {"conv.weight": torch.randn(4, 3, 3, 3), "bn.num": torch.tensor(3), "half": torch.ones(5).half()}
        arrays = {key: value.numpy() for key, value in state.items()}
        self.files: dict[str, bytes] = {"w.safetensors": save(state)}
        for new in (True, False):
            held = io.BytesIO()
            torch.save({"state_dict": state, "epoch": 3}, held, _use_new_zipfile_serialization=new)
            self.files["zip.pth" if new else "stream.pth"] = held.getvalue()
        self.files |= {f"p{protocol}.pdparams": pickle.dumps(arrays, protocol) for protocol in (0, 2, 4, 5)}
        tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in arrays.items()]
        model = helper.make_model(helper.make_graph([], "g", [], [], initializer=tensors))
        self.files["w.onnx"] = model.SerializeToString()
        model.graph.initializer[0].ClearField("raw_data")
        model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
        model.graph.initializer[0].external_data.add(key="location", value="../../../../../../etc/passwd")
        self.external = model.SerializeToString()

    def pick(self, rng: random.Random) -> tuple[str, bytes]:
        """A whole file."""
        return rng.choice(sorted(self.files.items()))


def flipped(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """A file with some bits turned."""
    name, content = bases.pick(rng)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return name, bytes(changed)


def cut(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """A file with a part removed, doubled or moved."""
    name, content = bases.pick(rng)
    first, end = sorted(rng.randrange(len(content)) for _ in range(2))
    parts = (content[:first], content[:first] + content[end:], content[:end] + content[first:], content[end:])
    return name, rng.choice(parts) or b"\x00"


def lying(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """A file with numbers replaced by extreme ones."""
    name, content = bases.pick(rng)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3))):
        width = rng.choice((1, 2, 4, 8))
        value = rng.choice((0, 1, (1 << 8 * width) - 1, 1 << (8 * width - 1), (1 << (8 * width - 1)) - 1))
        at = rng.randrange(max(1, len(changed) - width))
        changed[at : at + width] = value.to_bytes(width, "little")
    return name, bytes(changed)


# --- pickles that call


def text(word: str) -> bytes:
    """A word on the stack."""
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def known(name: str, rng: random.Random) -> bytes:
    """A name on the stack, in one of two ways."""
    module, _, word = name.rpartition(".")
    if rng.random() < 0.5:
        return f"c{module}\n{word}\n".encode()
    return text(module) + text(word) + b"\x93"


ATTACKS = (
    "os.system", "posix.system", "nt.system", "subprocess.call", "subprocess.check_output", "builtins.eval",
    "builtins.exec", "builtins.open", "__builtin__.eval", "builtins.__import__", "importlib.import_module",
    "operator.attrgetter", "operator.methodcaller", "shutil.copyfile", "runpy.run_path", "ctypes.CDLL",
)  # fmt: skip
"""Names that are refused when they are said; a file with one is read no further, so most files have others."""
NAMES = (
    "builtins.getattr", "functools.partial", "functools.reduce", "pathlib.Path.write_text", "pickle.loads",
    "torch.load", "torch.save", "torch.hub.load", "torch.storage._load_from_bytes", "torch.jit.load",
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch._tensor._rebuild_from_type_v2",
    "torch.nn.parameter.Parameter", "torch.FloatStorage", "torch.UntypedStorage", "torch.storage.TypedStorage",
    "torch._C._FunctionBase", "numpy.load", "numpy.fromfile", "numpy.dtype", "numpy.ndarray",
    "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar", "numpy.core.numeric._frombuffer",
    "numpy.testing._private.utils.runstring", "numpy.lib.format.open_memmap", "collections.OrderedDict",
    "collections.defaultdict", "_codecs.encode", "builtins.bytearray", "builtins.list", "builtins.set",
    "builtins.complex", "builtins.dict", "types.CodeType", "types.FunctionType", "copyreg._reconstructor",
    "argparse.Namespace", "torch.Size", "torch.device", "logging.FileHandler", "tempfile.mkstemp", "codecs.open",
    "io.open", "sqlite3.connect",
)  # fmt: skip


def argument(rng: random.Random, bases: Bases, depth: int = 0) -> bytes:
    """Something on the stack."""
    command = f"touch {bases.canary}"
    code = f"open({bases.canary!r}, 'w').close()"
    plain = (
        text(command), text(code), text(bases.canary), text("w"), text("f4"), text("O8"), text("|"), b"N", b"\x88",
        b")", b"]", b"}", b"K\x01", b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
        b"G" + struct.pack(">d", float("inf")), b"C\x08AAAAAAAA", b"(K\x02K\x03t", b"(K\x00K\x01t",
    )  # fmt: skip
    if depth < 3 and rng.random() < 0.35:
        return call(rng, bases, depth + 1)
    return rng.choice(plain)


def call(rng: random.Random, bases: Bases, depth: int = 0) -> bytes:
    """A call on the stack, in one of the ways that pickles have."""
    name = rng.choice(ATTACKS if rng.random() < 0.05 else NAMES)
    target = known(name, rng)
    given = b"".join(argument(rng, bases, depth) for _ in range(rng.randrange(7)))
    module, _, word = name.rpartition(".")
    ways = (
        target + b"(" + given + b"tR",
        target + b"(" + given + b"t\x81",
        target + b"(" + given + b"t}\x92",
        b"(" + given + f"i{module}\n{word}\n".encode(),
        b"(" + target + given + b"o",
        target + b")R" + argument(rng, bases, depth) + b"b",
        target + argument(rng, bases, depth) + b"b",
        target
        + b")\x81}"
        + text("__setstate__")
        + known("pickle.loads", rng)
        + b"sb"
        + text(f"touch {bases.canary}")
        + b"b",
        target + b"]" + argument(rng, bases, depth) + b"a" + b"b",
    )
    return rng.choice(ways)


def placed(rng: random.Random, bases: Bases, body: bytes) -> tuple[str, bytes]:
    """A pickle in one of the files that hold pickles."""
    whole = b"\x80\x04" + body + b"."
    where = rng.randrange(4)
    if where == 0:
        return "w.pdparams", whole
    if where == 1:
        return "w.pth", whole
    if where == 2:
        stream = bases.files["stream.pth"]
        return "w.pth", stream[: stream.rindex(b"\x80\x02", 0, stream.index(b"state_dict"))] + whole
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("w/data.pkl", whole)
        archive.writestr("w/data/0", bytes(48))
    return "w.pth", held.getvalue()


def calling(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """A dict with calls in it."""
    entries = b"".join(text(f"k{at}") + call(rng, bases) for at in range(rng.randrange(1, 5)))
    return placed(rng, bases, b"}(" + entries + b"u")


def tensor(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """A tensor over a storage, with parts that cannot be."""
    numbers = (
        b"K\x00",
        b"K\x01",
        b"K\x0c",
        b"J\xff\xff\xff\xff",
        b"J\xff\xff\xff\x7f",
        b"\x8a\x09" + bytes(8) + b"\x01",
        b"N",
    )
    some: Callable[[int], bytes] = lambda most: b"(" + b"".join(rng.choices(numbers, k=rng.randrange(most))) + b"t"  # noqa: E731
    kind = rng.choice(("FloatStorage", "DoubleStorage", "UntypedStorage", "QInt8Storage", "NoStorage"))
    storage = (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + rng.choice(numbers) + b"tQ"
    )
    parts = storage + rng.choice(numbers) + some(5) + some(5) + b"\x89}"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + parts + b"tR"
    return placed(rng, bases, b"}" + text("a") + made + b"s")


def array(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """A numpy array with a type, shape and bytes that cannot be."""
    spelled = rng.choice(("f4", "O8", "V8", "M8", "U9", "f16", "i0", "f999999999", "c16", "?", "S", ""))
    kind = b"cnumpy\ndtype\n(" + text(spelled) + b"K\x00K\x01tR"
    state = (
        b"(K\x03" + text(rng.choice("<>|=x")) + rng.choice((b"NNN", b"(tNN", b"N}}")) + b"J\xff\xff\xff\xffK\x08K?tb"
    )
    shape = rng.choice((b")", b"(K\x02t", b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft", b"(J\xff\xff\xff\xfft", b"N"))
    draft = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    data = rng.choice((b"C\x08AAAAAAAA", b"C\x00", b"]", text("AAAAAAAA"), b"N"))
    typed = kind + (state if rng.random() < 0.6 else b"")
    made = draft + b"(K\x01" + shape + typed + rng.choice((b"\x88", b"\x89")) + data + b"tb"
    return placed(rng, bases, b"}" + text("a") + made + b"s")


OPCODES = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu})]}GBC" + bytes(range(0x80, 0x99))


def steps(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """Opcodes in any order, most with arguments that fit."""
    pieces = []
    for _ in range(rng.randrange(5, 200)):
        code = rng.choice(OPCODES)
        argument_ = {ord("K"): b"\x05", ord("q"): b"\x01", ord("h"): b"\x01", ord("J"): b"\x01\x00\x00\x00"}.get(
            code, b""
        )
        pieces.append(argument(rng, bases, 2) if rng.random() < 0.4 else bytes([code]) + argument_)
    return placed(rng, bases, b"".join(pieces))


def bomb(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """Little that becomes much."""
    size = rng.choice((100, 5_000, 200_000))
    huge = struct.pack("<I", rng.choice((0x7FFFFFFF, 0xFFFFFFFF, 0x10000000)))
    bodies = (
        b")" + b"\x85" * size, b"]" * size + b"a" * (size - 1), b"})" + b"2\x86" * 60 + b"Ns",
        b"})" + b"\x85" * size + b"Ns",
        b"Nr" + huge, b"X" + huge, b"B" + huge, b"\x8b" + huge, b"\x95" + huge * 2, b"\x8e" + huge * 2,
        b"(" * size + b"N",
        b"]q\x00" + b"h\x00a" * size, b"(" + b"N" * size + b"tq\x000" + b"]" + b"h\x00a" * 1000,
        b"(" + b"N" * size + b"lq\x000" + b"cbuiltins\nlist\nh\x00\x85R0" * 1000 + b"N", b"I" + b"9" * size + b"\n",
        b"L" + b"9" * size + b"L\n", b"F" + b"9" * size + b"\n", b"c" + b"x" * size + b"\ny\n)R", text("x" * size),
    )  # fmt: skip
    return placed(rng, bases, rng.choice(bodies))


def packed(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """A zip that unpacks to much, or whose numbers lie."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}X\x01\x00\x00\x00aNs." + bytes(rng.choice((0, 1000, 3_000_000))))
        archive.writestr("w/data/0", bytes(rng.choice((0, 12, 2_000_000))))
    content = bytearray(held.getvalue())
    places = [at for mark in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06") for at in (content.find(mark),)]
    for _ in range(rng.randrange(3)):
        at = rng.choice(places) + rng.randrange(4, 46)
        content[at : at + 2] = rng.choice((b"\x00\x00", b"\xff\xff", b"\x01\x00"))
    return "w.pth", bytes(content)


def header(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """A safetensors file whose header lies."""
    odd: tuple[Any, ...] = (
        -1,
        0,
        1 << 31,
        1 << 63,
        1 << 70,
        1e308,
        float("inf"),
        None,
        "4",
        [],
        {},
        True,
        "x" * 100_000,
    )
    entry: dict[str, Any] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    key = rng.choice(sorted(entry))
    entry[key] = rng.choice((rng.choice(odd), [rng.choice(odd)], [rng.choice(odd), rng.choice(odd)]))
    name = rng.choice(("a", "", "x" * 1_000_000, "\x00\x1b[2J", "\ud800"))
    body = json.dumps({name: entry, **({"b": entry} if rng.random() < 0.3 else {})}).encode()
    body = rng.choice((body, body, b"[" * 50_000, b'{"a":' * 20_000, body[:-1]))
    size = rng.choice((len(body), len(body), len(body) + 1, 1 << 40, (1 << 64) - 1, 0))
    return "w.safetensors", struct.pack("<Q", size) + body + bytes(24)


def external(rng: random.Random, bases: Bases) -> tuple[str, bytes]:
    """An ONNX file that points elsewhere, whole or damaged."""
    changed = bytearray(bases.external)
    for _ in range(rng.randrange(3)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return "w.onnx", bytes(changed)


MAKERS: tuple[Maker, ...] = (
    flipped, cut, lying, calling, calling, tensor, array, steps, bomb, packed, header, external,
)  # fmt: skip


def make(seed: int, bases: Bases) -> tuple[str, bytes]:
    """The file of a seed: its name and what it holds."""
    rng = random.Random(seed)
    return MAKERS[seed % len(MAKERS)](rng, bases)


# --- reading them in a child


def read_all(first: int, count: int, folder: Path) -> list[dict[str, Any]]:
    """Read the files of `count` seeds from `first` on, and tell what went wrong."""
    import torch

    from edgeseg.errors import CheckpointError
    from edgeseg.models.checkpoints import read_checkpoint

    torch.set_num_threads(1)
    bases = Bases(str(folder / "canary"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    wrong: list[dict[str, Any]] = []
    for seed in range(first, first + count):
        name, content = make(seed, bases)
        file = folder / name
        file.write_bytes(content)
        (folder / "seed").write_text(str(seed))
        start, fault = time.process_time(), ""
        try:
            state = read_checkpoint(file)
            whole = all(
                isinstance(value, torch.Tensor) and value.sum() is not None for value in map(_small, state.values())
            )
            fault = "" if state and whole else "no tensors"
        except CheckpointError as error:
            told = str(error)
            fault = f"a sentence: {told[:200]!r}" if "\n" in told or len(told) >= LONGEST else ""
        except BaseException as error:
            fault = f"{type(error).__name__}: {str(error)[:200]}"
        spent = time.process_time() - start
        if fault or spent > SECONDS or (folder / "canary").exists():
            wrong.append({"seed": seed, "fault": fault, "seconds": spent, "ran": (folder / "canary").exists()})
    return wrong


def _small(value: Any) -> Any:
    """A tensor's first values as numbers that can be summed."""
    import torch

    first = value.reshape(-1)[:16] if value.numel() < 1 << 20 else value.as_strided((1,), (1,), value.storage_offset())
    return first.to(torch.complex64 if value.is_complex() else torch.float32)


def _run(first: int, count: int, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, __file__, str(first), str(count), str(folder)],
        capture_output=True, text=True, check=False, env=environment, timeout=60 + count,
    )  # fmt: skip
    last = (folder / "seed").read_text() if (folder / "seed").exists() else "none"
    assert done.returncode == 0, f"the child ended with {done.returncode} at seed {last}: {done.stderr[-800:]}"
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_mutated_checkpoints(tmp_path: Path) -> None:
    _run(0, 1_200, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize("first", range(10_000, 18_000, 2_000))
def test_many_mutated_checkpoints(tmp_path: Path, first: int) -> None:
    _run(first, 2_000, tmp_path)


def test_the_canary_would_be_seen(tmp_path: Path) -> None:
    """The payloads do run where a file is simply unpickled."""
    canary = tmp_path / "canary"
    pickle.loads(b"\x80\x04" + known("os.system", random.Random(0)) + text(f"touch {canary}") + b"\x85R.")
    assert canary.exists()


if __name__ == "__main__":
    print(json.dumps(read_all(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
