"""What the README and the help tell people to type does what they say: every line is run, as it stands.

The README's lines run in order in one folder that holds the files they name (slow: exports at 512x1024, int8, two
benchmarks). Words in capitals stand for something of the reader's own; `STANDS_FOR` has what. Quick, with the fast
tests: every command without arguments, and the examples in the help.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.conftest import SHARED
from tests.models.configs.trees import FAST_SCNN
from tests.pages import README, ROOT, command_lines, leaves, parse, whole_app

EDGESEG = Path(sys.executable).with_name("edgeseg")
LINES = [line for line in command_lines(README) if len(line.split()) > 2 or line.split()[1] in ("doctor", "models")]
CHECKPOINT = "decoder_espnet_p_2_q_8.pth"
SOURCE = "FRAME_OR_FOLDER_OR_VIDEO_OR_CAMERA"
STANDS_FOR = {"NAME": "espnet_p2_q8", "FILE": CHECKPOINT, "HxW": "512x1024"}
VOID = 255
QUICK, MODELS, SLOW = 30.0, 120.0, 600.0  # seconds a command may take

# What libraries print: levels, tags in brackets, dates, source lines, warnings. edgeseg's own sentences have none.
FOREIGN = re.compile(
    r"warning|\b(?:INFO|WARN|ERROR|DEBUG)\b|^\W*\[\w|\d{4}-\d\d-\d\d|site-packages/|\.(?:py|cc|cpp):\d|^[IWEF]\d{4}",
    re.IGNORECASE,
)

FACTORY = """
from torch import nn

def factory():
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
"""


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    code: int
    out: str
    err: str
    seconds: float


def run(words: list[str], folder: Path, limit: float) -> Outcome:
    """Run `edgeseg WORDS` as a person would, with a home of its own and this interpreter's packages alone."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "XDG_", "PYTEST_"))}
    before = time.monotonic()
    done = subprocess.run(
        [EDGESEG, *words],
        cwd=folder,
        env={**kept, "HOME": str(folder / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - before)


def complaints(outcome: Outcome, codes: tuple[int, ...]) -> list[str]:
    """What is wrong with an outcome: its code, a traceback, or words on standard error that are not edgeseg's own."""
    wrong = [] if outcome.code in codes else [f"exit code {outcome.code}; expected {' or '.join(map(str, codes))}"]
    if "Traceback" in outcome.out + outcome.err:
        wrong.append("a traceback")
    lines = outcome.err.splitlines()
    ends = [line for line in lines if line.startswith("edgeseg: ")]
    if len(ends) != (outcome.code != 0):
        wrong.append(f"{len(ends)} sentences of edgeseg's on how it ended; expected {int(outcome.code != 0)}")
    wrong += [
        f"not edgeseg's own: {line!r}" for line in lines if not re.match(r"[a-z0-9]", line) or FOREIGN.search(line)
    ]
    return wrong


@pytest.mark.parametrize(
    ("outcome", "codes", "count"),
    [
        (Outcome(0, "done\n", "folding batch norms\n1 picture in 'out'\n", 1.0), (0,), 0),
        (Outcome(6, "", "measuring x on trt ...\nedgeseg: the trt target needs the package tensorrt\n", 1.0), (6,), 0),
        (Outcome(1, "", "edgeseg: no\n", 1.0), (0,), 1),
        (Outcome(2, "", "", 1.0), (2,), 1),
        (Outcome(2, "", "edgeseg: one\nedgeseg: two\n", 1.0), (2,), 1),
        (Outcome(0, "", "UserWarning: deprecated\n", 1.0), (0,), 1),
        (Outcome(0, "", "[ INFO ] reading network\n", 1.0), (0,), 1),
        (Outcome(0, "", "2026-01-01 00:00:00.1 [W:onnxruntime:] initializer\n", 1.0), (0,), 1),
        (Outcome(1, "", "Traceback (most recent call last):\n", 1.0), (1,), 3),
    ],
)
def test_complaints(outcome: Outcome, codes: tuple[int, ...], count: int) -> None:
    assert len(complaints(outcome, codes)) == count


COMMANDS = sorted(leaves(whole_app()))
RUNS_ALONE = {("models",), ("doctor",)}


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(("edgeseg", *words)) for words in COMMANDS])
def test_command_without_arguments(words: tuple[str, ...], tmp_path: Path) -> None:
    outcome = run(list(words), tmp_path, MODELS if words == ("models",) else QUICK)
    if not words:  # the help; which code says so differs between releases of click
        assert (outcome.code in (0, 2), outcome.err, "Commands" in outcome.out) == (True, "", True)
    elif words in RUNS_ALONE:
        assert complaints(outcome, (0,)) == []
        assert (outcome.err, bool(outcome.out)) == ("", True)
    else:
        assert complaints(outcome, (2,)) == []
        assert "--help" in outcome.err
        assert outcome.out == ""


def _help_lines() -> Iterator[tuple[str, str]]:
    """Lines in the help that look like commands, with the command whose help it is."""
    for words, command in leaves(whole_app()).items():
        texts = [command.help or "", *(str(getattr(option, "help", "") or "") for option in command.params)]
        for line in command_lines("\n".join(texts)):
            yield " ".join(("edgeseg", *words)), line


HELP_LINES = sorted(set(_help_lines()))


@pytest.mark.parametrize(("command", "line"), HELP_LINES, ids=[f"{name}: {line}" for name, line in HELP_LINES])
def test_examples_in_the_help_parse(command: str, line: str) -> None:
    parse(line, mention=True)


@pytest.mark.parametrize("line", ["edgeseg verify --kee public.pem", "edgeseg verifi x.edgeseg", "edgeseg models a b"])
def test_a_wrong_example_does_not_parse(line: str) -> None:
    with pytest.raises(Exception, match=r"--kee|verifi|\(b\)"):
        parse(line, mention=True)


def test_the_help_has_examples() -> None:
    """So that the test above looks at something."""
    assert ("edgeseg benchmark", "edgeseg benchmark compare BEFORE.json AFTER.json") in [
        (name.removesuffix(" run"), line) for name, line in HELP_LINES
    ]


def _lay_out(folder: Path) -> None:
    """Put what the README's lines name into a folder: real weights and pictures where they are beside the checkout."""
    for name in ("home", "frames", "labels", "package"):
        (folder / name).mkdir(parents=True)
    checkpoint = SHARED / "real" / "weights" / CHECKPOINT
    streets = _streets() if checkpoint.is_file() else {}
    if streets:
        shutil.copyfile(checkpoint, folder / CHECKPOINT)
    else:
        _random_checkpoint(folder / CHECKPOINT)
    astronaut = cv2.imread(str(ROOT / "edgeseg" / "data" / "astronaut.png"))
    assert astronaut is not None
    void = np.full(astronaut.shape[:2], VOID, np.uint8)  # no street; and without real streets, two flat halves
    labelled = streets or {
        f"half{index}": (astronaut[:, ::step], _halves(astronaut)) for index, step in enumerate((1, -1))
    }
    for stem, (picture, labels) in {"astronaut": (astronaut, void), **labelled}.items():
        cv2.imwrite(str(folder / "frames" / f"{stem}.png"), picture)
        cv2.imwrite(str(folder / "labels" / f"{stem}.png"), labels)
    shutil.copytree(folder / "frames", folder / SOURCE)
    _own_network(folder)
    _keys(folder)


def _streets() -> dict[str, tuple[Any, Any]]:
    """The two labelled Cityscapes frames beside the checkout at the network's size, as they are and mirrored."""
    found = {}
    for truth in sorted((SHARED / "real" / "cityscapes").glob("*_gtFine_labelTrainIds.png")):
        stem = truth.name.removesuffix("_gtFine_labelTrainIds.png")
        labels = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED)
        picture = cv2.imread(str(truth.with_name(f"{stem}_leftImg8bit.png")))
        assert labels is not None
        assert picture is not None
        labels = cv2.resize(labels, (1024, 512), interpolation=cv2.INTER_NEAREST)
        picture = cv2.resize(picture, (1024, 512), interpolation=cv2.INTER_AREA)
        found[stem] = (picture, labels)
        found[f"{stem}_mirrored"] = (picture[:, ::-1], labels[:, ::-1])
    return found


def _halves(picture: Any) -> Any:
    labels = np.zeros(picture.shape[:2], np.uint8)
    labels[: len(labels) // 2] = 1
    return labels


def _random_checkpoint(file: Path) -> None:
    import torch

    from edgeseg import create_model

    torch.manual_seed(0)
    torch.save(create_model(STANDS_FOR["NAME"]).state_dict(), file)


def _own_network(folder: Path) -> None:
    """`package.module:factory`, a config, and their checkpoints, and programs, as the README names them."""
    import torch

    from edgeseg.models import create_model

    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "module.py").write_text(FACTORY, encoding="utf-8")
    space: dict[str, Any] = {}
    exec(FACTORY, space)
    network, picture = space["factory"]().eval(), torch.zeros(1, 3, 64, 128)
    torch.save(network.state_dict(), folder / "mine.pth")
    torch.export.save(torch.export.export(network, (picture,)), folder / "net.pt2")
    traced: Any = torch.jit.trace
    traced(network, picture).save(folder / "net.pt")
    small = "test_pipeline = [dict(type='Resize', scale=(128, 64))]\n"
    (folder / "mine.py").write_text(FAST_SCNN + small, encoding="utf-8")
    torch.save({"state_dict": create_model("mmseg_fastscnn", aux=True).state_dict()}, folder / "iter_160000.pth")


def _keys(folder: Path) -> None:
    """A pair of keys to sign with, where the extra `sign` is installed."""
    if find_spec("cryptography") is None:
        return
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    plain = (form.Encoding.PEM, form.PrivateFormat.TraditionalOpenSSL, form.NoEncryption())
    (folder / "private.pem").write_bytes(key.private_bytes(*plain))
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)


def _words(line: str) -> list[str]:
    """A line's words after `edgeseg`, with the reader's own names put in and what this machine lacks taken out."""
    words = shlex.split(line)[1:]
    if find_spec("tensorrt_rtx_bindings") is None:
        words = [word for word in words if word != "trt-rtx"]
    meant = [word if word == SOURCE else _meant(word) for word in words]
    unknown = [word for word in meant if word != SOURCE and re.search(r"[A-Z]{4}", word)]
    assert unknown == [], f"'{line}': say in STANDS_FOR what they stand for"
    return meant


def _meant(word: str) -> str:
    return re.sub("|".join(STANDS_FOR), lambda found: STANDS_FOR[found[0]], word)


GUARD = "int8 is (?:slower|below)"


def _codes(words: list[str], usable: set[str]) -> tuple[int, ...]:
    """The codes a line may end with: 0; 6 where its target is not here; what a measurement decides may go both ways."""
    if words[0] in ("verify", "benchmark", "predict", "eval") and {"trt", "trt-rtx"} & set(words) - usable:
        return (6,)
    if words[:2] == ["benchmark", "compare"]:
        return (0, 10)
    return (0, 4) if "int8" in words else (0,)


def _before(line: str, words: list[str], folder: Path) -> None:
    """What the README says between its command lines: the bundle is copied to the device; a second measurement."""
    bundle = f"{STANDS_FOR['NAME']}.edgeseg"
    if "NAME.edgeseg" in line:  # the line with rsync
        shutil.rmtree(folder / bundle, ignore_errors=True)
        shutil.copytree(folder / "build" / bundle, folder / bundle)
    if words[:2] == ["benchmark", "compare"]:
        measured = next(_words(line) for line in LINES if line.startswith("edgeseg benchmark ") and words[2] in line)
        again = run([words[3] if word == words[2] else word for word in measured], folder, SLOW)
        assert complaints(again, (0,)) == []


def _check_files(folder: Path) -> None:
    """What the lines were to leave: bundles, masks and overlays for every picture, measurements."""
    name = STANDS_FOR["NAME"]
    for bundle in (f"build/{name}.edgeseg", f"{name}.edgeseg", "mine.edgeseg"):
        assert (folder / bundle / "manifest.json").is_file(), bundle
    pictures = sorted(path.stem for path in (folder / SOURCE).iterdir())
    for kind in ("overlay", "labels"):
        written = [path.name for path in (folder / "out").rglob(f"*{kind}*")]
        assert len(written) >= len(pictures), (kind, written)
    left = [path for path in (folder / "home").rglob("*") if path.is_file()]
    assert [path for path in left if "edgeseg" not in path.parts] == [], "a library left files in the user's home"
    for report in ("before.json", "after.json"):
        assert json.loads((folder / report).read_text(encoding="utf-8"))["kind"] == "edgeseg-benchmark"


def _usable() -> set[str]:
    from edgeseg.doctor import probe_targets

    return {name for name, probe in probe_targets().items() if probe.usable}


@pytest.mark.slow
def test_every_command_of_the_readme(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the README's lines export for OpenVINO: pip install 'edgeseg[openvino]'")
    _lay_out(tmp_path)
    usable, wrong = _usable(), list[str]()
    print()
    for line in LINES:
        words = _words(line)
        _before(line, words, tmp_path)
        outcome = run(words, tmp_path, SLOW)
        print(f"{outcome.seconds:6.1f} s  {outcome.code}  {line}")
        found = complaints(outcome, _codes(words, usable))
        if outcome.code == 4 and not re.search(GUARD, outcome.err):
            found.append("refused, and not by the acceptance of int8")
        wrong += [f"{line}: {sentence}\n{outcome.err}" for sentence in found]
        for suggested in re.findall(r"^  (edgeseg .*)$", outcome.out, re.MULTILINE):  # what export names as next
            parse(suggested)
    assert wrong == [], "\n".join(wrong)
    _check_files(tmp_path)
