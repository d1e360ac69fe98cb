"""Config files: what is read of each form, that no code runs unasked, and what cannot be read in one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import ExportError, TargetUnavailableError, UsageError
from edgeseg.models.configs import files
from edgeseg.models.configs.files import read_config_file
from edgeseg.models.configs.limits import LARGEST_FILE, Budget
from edgeseg.models.configs.literals import parse_python, read_literals
from edgeseg.models.configs.merging import merged
from tests.models.configs.trees import write, write_tree

LITERALS = {
    "x = -3 * 2 + 1 / 4": -5.75,
    "x = 7 // 2 - 1": 2,
    "size = (512, 1024)\nx = dict(crop=size, width=size[1])": {"crop": (512, 1024), "width": 1024},
    "a = dict(b=dict(c=[1, 2, 3]))\nx = a['b']['c'][-1]": 3,
    "a = [1, 2, 3]\nx = [*a[1:], 4]": [2, 3, 4],
    "a = dict(p=1)\nx = dict(type='N', **a)": {"type": "N", "p": 1},
    "a = {'p': 1}\nx = {**a, 'q': None}": {"p": 1, "q": None},
    "x = dict({'p': 1}, q=True)": {"p": 1, "q": True},
    "x = [0] * 3 + [1]": [0, 0, 0, 1],
    "x = 'a' + 'b' 'c'": "abc",
    "x = tuple([1, 2])": (1, 2),
    "x = list((1, 2))": [1, 2],
    "x: int = 5": 5,
    "'''says what it is'''\nx = 1\npass": 1,
    "x = 1\nx = 2": 2,
    "x = sum([18, 36, 72])": 126,
    "x = [len('ab'), max([1, 3]), min((2, 1)), int(2.5), float('0.5')]": [2, 3, 1, 2, 0.5],
    "x = list(range(3)) + list(range(5, 1, -2))": [0, 1, 2, 5, 3],
    "r = [0.5, 1.0]\nx = [dict(type='Resize', scale_factor=k, keep=True) for k in r]": [
        {"type": "Resize", "scale_factor": 0.5, "keep": True},
        {"type": "Resize", "scale_factor": 1.0, "keep": True},
    ],
    "n = 2\nx = [dict(stage=k) for k in range(n)]": [{"stage": 0}, {"stage": 1}],
    "x = [[a, b] for a in (1, 2) for b in (a, 3)]": [[1, 1], [1, 3], [2, 2], [2, 3]],
    "a = 5\nb = [a for a in (1, 2)]\nx = a": 5,
}

CODE = {
    "import os": "an import",
    "from mmengine.config import read_base\nwith read_base():\n    from .a import *": "an import",
    "x = open('{canary}', 'w')": "a call of 'open'",
    "x = __import__('os').system('touch {canary}')": "a call of",
    "x = [open('{canary}', 'w') for _ in (1,)]": "a call of 'open'",
    "x = [k for k in open('{canary}', 'w')]": "a call of 'open'",
    "x = [k for k in (1, 2) if k > 1]": "a comprehension",
    "x = [k for k, j in ((1, 2),)]": "'(k, j)'",
    "x = [len for len in (1, 2)]": "'len'",
    "x = {k: 1 for k in ('a', 'b')}": "a comprehension",
    "x = list(k for k in (1, 2))": "a comprehension",
    "x = sum([1], start=2)": "a call of 'sum'",
    "x = max(1, 2)": "a call of 'max'",
    "x = eval('1')": "a call of 'eval'",
    "len = 3\nx = 1": "len = 3",
    "x = (lambda: 1)()": "a call of",
    "x = f'{1}'": "an f-string",
    "for i in (1, 2):\n    x = i": "a loop",
    "if True:\n    x = 1": "a condition",
    "def f():\n    pass": "a function",
    "class A:\n    x = open('{canary}', 'w')": "a class",
    "x = 1 if 2 else 3": "a condition",
    "x = dict(a=1)\nx['a'] = 2": "x['a'] = 2",
    "x = 1\ndel x": "a deletion",
    "x = [1]\nx += [2]": "a change of a value",
    "x = {1, 2}": "a set",
    "x = y": "the name 'y'",
    "dict = list\nx = dict()": "dict = list",
    "x = 2 ** 99999999": "an operation",
    "x = 'a' * 2.5": "an operation",
    "x = b'bytes'": "b'bytes'",
    "try:\n    x = 1\nfinally:\n    pass": "a try block",
    "x = dict(dict(a=1).items())": "a call of",
}

TOO_MUCH = {
    "x = [0] * 1000000000": "more than 500000 values",
    "a = [0] * 100\n" + "\n".join(f"a = [{', '.join('a' * 10)}]" for _ in range(10)): "more than 500000 values",
    "a = 'x'\n" + "a = a + a\n" * 60: "more than 500000 values",
    "a = 3\n" + "a = a * a\n" * 60: "more than 1024 bits",
    f"a = {'[' * 90}{']' * 90}": "nested deeper than 64",
    f"a = {'[' * 5000}{']' * 5000}": "is no Python",
    f"a = {'-' * 5000}1": "cannot be parsed",
    "x = 1 / 0": "cannot be computed in line 1",
    "x = sum(['a'])": "cannot be computed in line 1",
    "x = int('one')": "cannot be computed in line 1",
    "x = max([])": "cannot be computed in line 1",
    "x = range(10 ** 0)": "an operation",
    "x = range(1000000000)": "more than 500000 values",
    "x = range('a')": "cannot be computed in line 1",
    f"x = range({9 * 10**40})": "cannot be computed in line 1",
    "x = [k for a in range(1000) for b in range(1000) for k in range(1000)]": "more than 500000 values",
    "x = [[[1] * 100 for a in range(100)] for b in range(100)]": "more than 500000 values",
    "x = 10.0 // 0": "cannot be computed in line 1",
    "x = dict(a=1)['b']": "is not there",
    "x = [1][5]": "is not there",
    "x = (": "is no Python (line 1",
    "a = dict(p=1)\nx = dict(p=2, **a)": "gives an entry of dict() twice in line 2",
    "x = 1\0": "no Python",
}


def _refused(file: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        read_config_file(file, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", LITERALS)
def test_literals(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "c.py", text)
    assert read_config_file(file)["x"] == LITERALS[text]
    assert read_config_file(file, trust=True)["x"] == LITERALS[text]


@pytest.mark.parametrize("text", CODE)
def test_code_is_named_and_does_not_run(tmp_path: Path, text: str) -> None:
    canary = tmp_path / "canary"
    file = write(tmp_path / "c.py", f"y0 = 1\n{text.replace('{canary}', str(canary))}")
    sentence = _refused(file)
    assert CODE[text] in sentence
    assert "--trust-config" in sentence
    assert any(f"in line {line}" in sentence for line in (2, 3))
    assert not canary.exists()


def test_code_in_a_base_does_not_run_either(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    write(tmp_path / "base.py", f"open({str(canary)!r}, 'w')")
    assert "base.py' has 'open(" in _refused(write(tmp_path / "c.py", "_base_ = './base.py'"))
    assert "a call of 'str'" in _refused(write(tmp_path / "d.py", "_base_ = str('base.py')"))
    assert not canary.exists()


@pytest.mark.parametrize("text", TOO_MUCH)
def test_limits(tmp_path: Path, text: str) -> None:
    assert TOO_MUCH[text] in _refused(write(tmp_path / "c.py", text))


def test_bases_are_joined_and_overruled(tmp_path: Path) -> None:
    write(tmp_path / "_base_/m.py", "norm = dict(type='BN')\nmodel = dict(a=dict(depth=50, norm=norm), b=[1, 2], c=1)")
    own = (
        "_base_ = ['../_base_/m.py']\n"
        "model = dict(a=dict(depth=18), b=[3], d={{_base_.model.a.depth}}, e=_base_.norm, f=_base_['model']['b'][0])"
    )
    file = write(tmp_path / "net/c.py", own)
    expected = {"a": {"depth": 18, "norm": {"type": "BN"}}, "b": [3], "c": 1, "d": 50, "e": {"type": "BN"}, "f": 1}
    for trust in (False, True):
        assert read_config_file(file, trust=trust) == {"norm": {"type": "BN"}, "model": expected}


def test_a_dictionary_replaces_the_base_where_it_says_so(tmp_path: Path) -> None:
    write(tmp_path / "m.py", "model = dict(a=dict(depth=50), b=None)")
    file = write(
        tmp_path / "c.py", "_base_ = 'm.py'\nmodel = dict(a=dict(_delete_=True, width=dict(_delete_=True, x=1)))"
    )
    assert read_config_file(file) == {"model": {"a": {"width": {"x": 1}}, "b": None}}
    file = write(tmp_path / "d.py", "_base_ = 'm.py'\nmodel = dict(b=dict(x=1))")
    assert "a dictionary for model.b, for which its base has none; write _delete_=True" in _refused(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("_base_ = './c.py'", "break the circle"),
        ("_base_ = 'other.py'", "break the circle"),
        ("_base_ = 'missing.py'", "no such file"),
        ("_base_ = ['a.py', 'b.py']", "two assign 'x'"),
        ("_base_ = '/etc/passwd'", "no path relative to it"),
        ("_base_ = '~/a.py'", "no path relative to it"),
        ("_base_ = 'mmseg::_base_/models/a.py'", "no path relative to it"),
        ("_base_ = 'https://example.org/a.py'", "no path relative to it"),
        ("_base_ = '../../../../../../../../etc/passwd'", "ends in none of .py"),
        ("_base_ = 5", "no file name, nor a list of them"),
        ("_base_ = ['a.py', 5]", "no file name, nor a list of them"),
    ],
)
def test_bases_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path / "other.py", "_base_ = 'c.py'")
    for name in ("a.py", "b.py"):
        write(tmp_path / name, "x = 1")
    assert words in _refused(write(tmp_path / "c.py", text))
    assert words in _refused(write(tmp_path / "c.py", text), trust=True)


def test_too_many_bases(tmp_path: Path) -> None:
    write(tmp_path / "0.py", "x = 1")
    for k in range(1, 70):
        write(tmp_path / f"{k}.py", f"_base_ = '{k - 1}.py'")
    assert "more than 64 files" in _refused(tmp_path / "69.py")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "ends in none of" in _refused(write(tmp_path / "c.txt", "x = 1"))
    assert "no such file" in _refused(tmp_path / "missing.py")
    (tmp_path / "folder.py").mkdir()
    assert "is no file" in _refused(tmp_path / "folder.py")
    assert "is no file" in _refused(tmp_path)
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'")
    assert "no UTF-8" in _refused(tmp_path / "latin.py")
    (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbfx = 1")
    assert read_config_file(tmp_path / "marked.py") == {"x": 1}
    assert f"at most {LARGEST_FILE} are read" in _refused(write(tmp_path / "huge.json", " " * (LARGEST_FILE + 1)))


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000])
def test_json_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    assert "cannot be read" in _refused(write(tmp_path / "c.json", text))


def test_a_json_dump_says_the_same(tmp_path: Path) -> None:
    read = read_config_file(write_tree(tmp_path))
    dumped = read_config_file(write(tmp_path / "dump.json", json.dumps(read)))
    assert dumped == json.loads(json.dumps(read))
    based = write(tmp_path / "own.json", json.dumps({"_base_": "dump.json", "model": {"backbone": {"type": "CGNet"}}}))
    assert read_config_file(based)["model"]["backbone"]["type"] == "CGNet"


class _Yaml(ModuleType):
    """PyYAML's part that is used, on a file that holds JSON, which is YAML; a tuple is an object of ``"!!"``."""

    __file__ = "stand-in"
    YAMLError = type("YAMLError", (Exception,), {})

    class SafeLoader:
        constructors: ClassVar[dict[str, Any]] = {}

        @classmethod
        def add_constructor(cls, tag: str, constructor: Any) -> None:
            cls.constructors = {**cls.constructors, tag: constructor}

        @staticmethod
        def construct_yaml_seq(node: list[Any]) -> list[Any]:
            return node

    def load(self, text: str, Loader: type[SafeLoader]) -> Any:
        if Loader is self.SafeLoader or "!!python/object" in text:
            raise self.YAMLError("could not determine a constructor for the tag '!!python/object'\nin line 1")
        tuples = Loader.constructors["tag:yaml.org,2002:python/tuple"]
        return json.loads(text, object_hook=lambda found: tuples(found["!!"]) if "!!" in found else found)


def test_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "c.yaml", '{"model": {"size": {"!!": [1, 2]}}}')
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(TargetUnavailableError, match="pip install pyyaml"):
        read_config_file(file)
    monkeypatch.setitem(sys.modules, "yaml", _Yaml("yaml"))
    assert read_config_file(file) == {"model": {"size": [1, 2]}}
    assert "no YAML of plain values" in _refused(write(tmp_path / "d.yml", "!!python/object:os.system"))
    assert "no YAML dictionary" in _refused(write(tmp_path / "e.yml", "[1]"))


def test_a_trusted_config_runs(tmp_path: Path) -> None:
    write(tmp_path / "base.py", "model = dict(depth=18, widths=[1, 2])")
    own = (
        "_base_ = 'base.py'\nimport math\n"
        "n = 0\nfor k in range(3):\n    n += k\n"
        "def double(x):\n    return 2 * x\n"
        "model = dict(n=double(n), depth=_base_.model.depth, w={{_base_.model.widths}}, kind=dict, one=math.cos(0))"
    )
    file = write(tmp_path / "c.py", own)
    read = read_config_file(file, trust=True)
    assert read["model"] == {"n": 6, "depth": 18, "w": [1, 2], "widths": [1, 2], "kind": "builtins.dict", "one": 1.0}
    assert read.keys() == {"model", "n", "k"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ValueError('no such depth\\nsecond line')", "ValueError: no such depth"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import no_such_module", "install what it imports"),
        ("x = _base_.y", "has no 'y'"),
    ],
)
def test_a_trusted_config_that_fails_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ExportError) as caught:
        read_config_file(write(tmp_path / "c.py", text), trust=True)
    assert words in str(caught.value)
    assert "second line" not in str(caught.value)


def test_mmengine_reads_where_it_is_installed_and_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    class Config(dict[str, Any]):
        @classmethod
        def fromfile(cls, name: str, *, import_custom_modules: bool) -> Config:
            asked.append((name, import_custom_modules))
            if "bad" in name:
                raise KeyError("Duplicate key")
            return cls(model={"type": Budget})

        def to_dict(self) -> dict[str, Any]:
            return dict(self)

    package, module = ModuleType("mmengine"), ModuleType("mmengine.config")
    vars(module).update(Config=Config, __file__="stand-in")
    monkeypatch.setitem(sys.modules, "mmengine", package)
    monkeypatch.setitem(sys.modules, "mmengine.config", module)
    monkeypatch.setattr(files, "has_mmengine", lambda: True)
    file = write(tmp_path / "c.py", "from a import b")
    assert read_config_file(file, trust=True) == {"model": {"type": "edgeseg.models.configs.limits.Budget"}}
    assert "an import" in _refused(file)
    with pytest.raises(ExportError, match="Duplicate key"):
        read_config_file(write(tmp_path / "bad.py", "x = 1"), trust=True)
    assert asked == [(str(file), False), (str(tmp_path / "bad.py"), False)]
    assert "no such file" in _refused(tmp_path / "missing.py", trust=True)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=12,
)


@given(_VALUES)
def test_what_python_writes_is_read_as_python_reads_it(value: Any) -> None:
    assert read_literals(parse_python(f"x = {value!r}"), {}, Budget()) == {"x": value}


@given(st.dictionaries(st.text("ab", min_size=1), _VALUES), st.dictionaries(st.text("ab", min_size=1), _VALUES))
def test_what_a_config_says_goes_before_its_base(base: dict[str, Any], own: dict[str, Any]) -> None:
    flat = {key: value for key, value in own.items() if not isinstance(value, dict)}
    assert merged(base, flat) == {**base, **flat}
    assert merged({}, own) == own
