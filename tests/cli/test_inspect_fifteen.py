"""`edgeseg inspect` on modules that return things in as many ways as people write them."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cli.conftest import Edgeseg

SIZE = "32x48"
CLASSES = 4


@dataclasses.dataclass
class _Output:
    logits: Tensor
    hidden_states: tuple[Tensor, ...] = ()


class _Pair(NamedTuple):
    embedding: Tensor
    logits: Tensor


class _ModelOutput(OrderedDict[str, Any]):
    """As transformers' own: a dictionary whose entries are attributes too, without those that are None."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class _Net(nn.Module):
    """Logits of 4 classes at stride 2, and whatever `form` makes of them and of the features below."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem, self.head, self.form = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, CLASSES, 1), form
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)

    def forward(self, image: Tensor) -> Any:
        features = self.stem(image)
        return self.form(self.head(features.relu()), features)


class _LossFirst(_Net):
    """Returns its loss too, as long as it trains."""

    def forward(self, image: Tensor) -> Any:
        logits = self.head(self.stem(image).relu())
        return (logits.mean(), logits) if self.training else logits


class _Transformer(_Net):
    """Takes the picture by name alone, as transformers' networks are called."""

    def forward(  # type: ignore[override]
        self, *, pixel_values: Tensor, labels: Tensor | None = None, return_dict: bool = True
    ) -> Any:
        logits = self.head(self.stem(pixel_values).relu())
        return _ModelOutput(logits=logits, hidden_states=(logits.mean(1, keepdim=True),))


class _AlwaysTraining(_Net):
    def __init__(self) -> None:
        super().__init__(lambda logits, _: logits)
        self.norm = nn.BatchNorm2d(6)

    def train(self, mode: bool = True) -> _AlwaysTraining:
        super().train(True)
        return self

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.stem(image)))
        return logits


def _generator(logits: Tensor, _: Tensor) -> Iterator[Tensor]:
    yield logits


def _scales(logits: Tensor, _: Tensor) -> list[Tensor]:
    return [F.avg_pool2d(logits, 4), F.avg_pool2d(logits, 2), logits]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "tensor": lambda: _Net(lambda logits, _: logits),
    "single": lambda: _Net(lambda logits, _: (logits,)),
    "dictionary": lambda: _Net(lambda logits, features: OrderedDict(aux=features[:, :CLASSES], out=logits)),
    "dataclass": lambda: _Net(lambda logits, features: _Output(logits, (features,))),
    "named": lambda: _Net(lambda logits, features: _Pair(features.mean((2, 3)), logits)),
    "nested": lambda: _Net(lambda logits, features: {"results": [{"seg": logits, "boxes": features[0, 0]}]}),
    "transformer": lambda: _Transformer(lambda logits, _: logits),
    "loss_first": lambda: _LossFirst(lambda logits, _: logits).train(),
    "upsampled": lambda: _Net(lambda logits, _: F.interpolate(logits, scale_factor=2, mode="bilinear")),
    "unknown_keys": lambda: _Net(lambda logits, features: OrderedDict(head_a=features, head_b=logits)),
    "scales": lambda: _Net(_scales),
    "embedding": lambda: _Net(lambda logits, features: (logits, features)),
    "labels": lambda: _Net(lambda logits, _: logits.argmax(1)),
    "channels_last": lambda: _Net(lambda logits, _: logits.permute(0, 2, 3, 1)),
    "swapped": lambda: _Net(lambda logits, _: logits.transpose(2, 3)),
    "padded": lambda: _Net(lambda logits, _: F.pad(logits, (3, 3, 3, 3))),
    "broken": lambda: _Net(lambda logits, _: logits / 0.0 * 0.0),
    "random": lambda: _Net(lambda logits, _: logits + torch.rand_like(logits)),
    "statistics": _AlwaysTraining,
    "squeezed": lambda: _Net(lambda logits, _: logits[:, 0].sigmoid()),
    "generator": lambda: _Net(_generator),
    "nothing": lambda: _Net(lambda logits, _: None),
}


def __getattr__(name: str) -> Any:  # each network is a factory of this module, by its name
    if name in NETWORKS:
        return NETWORKS[name]
    raise AttributeError(name)


SEEN = {
    "tensor": ("a tensor alone", "16x24"),
    "single": ("'0' of what it returns", "16x24"),
    "dictionary": ("'out' of what it returns", "16x24"),
    "dataclass": ("'logits' of what it returns", "16x24"),
    "named": ("'logits' of what it returns", "16x24"),
    "nested": ("'results.0.seg' of what it returns", "16x24"),
    "transformer": ("'logits' of what it returns", "16x24"),
    "loss_first": ("a tensor alone", "16x24"),
    "upsampled": ("a tensor alone", "32x48"),
}

NOTES = {
    "dictionary": "several maps (aux (1, 4, 16, 24), out (1, 4, 16, 24)); 'out' was taken",
    "dataclass": "several maps (logits (1, 4, 16, 24), hidden_states.0 (1, 6, 16, 24)); 'logits' was taken",
    "transformer": "_Transformer takes the picture as its argument 'pixel_values'",
}

ASKED = {
    "unknown_keys": ("head_a (1, 6, 16, 24), head_b (1, 4, 16, 24)", "head_b", "16x24"),
    "scales": ("0 (1, 4, 4, 6), 1 (1, 4, 8, 12), 2 (1, 4, 16, 24)", "2", "16x24"),
    "embedding": ("0 (1, 4, 16, 24), 1 (1, 6, 16, 24)", "0", "16x24"),
}

REFUSED = {
    "labels": "the network returned torch.int64; expected floating-point logits, before any argmax",
    "channels_last": "the network returned (1, 16, 24, 4) for a picture of 32x48: the classes stand last",
    "swapped": "the network returned (1, 4, 24, 16) for a picture of 32x48: height and width are swapped",
    "padded": "the network returned (1, 4, 22, 30) for a picture of 32x48, whose height and width are not",
    "broken": "fp32 PyTorch gives logits that are not finite numbers: its parameters are finite",
    "random": "the network gives other logits for the same picture at a second forward: it draws random numbers",
    "statistics": "the logits of a picture depend on the other pictures of its batch: 'norm' is in training mode",
    "squeezed": "a single channel that was squeezed is kept by leaving out the squeeze",
    "generator": "the network returned generator without a tensor in it; expected logits (N, classes, h, w)",
    "nothing": "the network returned NoneType without a tensor in it",
}


def test_each_network_is_of_one_kind() -> None:
    assert sorted([*SEEN, *ASKED, *REFUSED]) == sorted(NETWORKS)
    assert len(NETWORKS) >= 15


def _rows(out: str) -> dict[str, str]:
    return {line[:20].strip(): line[20:].strip() for line in out.splitlines()}


@pytest.mark.parametrize("name", SEEN)
def test_what_is_plain_is_taken(edgeseg: Edgeseg, name: str) -> None:
    done = edgeseg("inspect", f"{__name__}:{name}", "--size", SIZE)
    rows = _rows(done.out)
    assert (done.code, done.err) == (0, "")
    assert (rows["logits"], rows["size of the logits"]) == SEEN[name]
    assert (rows["network"], rows["picture"], rows["channels"]) == (f"{__name__}:{name}", SIZE, str(CLASSES))
    low, high = (float(word) for word in rows["range"].split(" .. "))
    assert low < high
    assert rows["looks like"] == "logits"
    after = " ".join(done.out.partition("looks like")[2].splitlines()[1:])
    assert NOTES[name] in " ".join(after.split()) if name in NOTES else after == ""


@pytest.mark.parametrize("name", ASKED)
def test_what_is_ambiguous_is_asked(edgeseg: Edgeseg, name: str) -> None:
    listed, take, size = ASKED[name]
    asked = edgeseg("inspect", f"{__name__}:{name}", "--size", SIZE)
    assert asked.code == 2
    assert f"the network returned {listed}; " in asked.sentence
    assert "so say which are the logits with --take KEY_OR_INDEX" in asked.sentence
    done = edgeseg("inspect", f"{__name__}:{name}", "--size", SIZE, "--take", take)
    rows = _rows(done.out)
    assert (done.code, rows["channels"], rows["size of the logits"]) == (0, str(CLASSES), size)
    assert rows["logits"] == f"'{take}' of what it returns"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_logits_is_one_sentence(edgeseg: Edgeseg, name: str) -> None:
    done = edgeseg("inspect", f"{__name__}:{name}", "--size", SIZE)
    assert (done.code, done.out) == (4, "")
    assert REFUSED[name] in done.sentence
    assert len(done.err.splitlines()) == 1


def test_a_size_that_is_no_stride_is_taken_where_the_user_says_so(edgeseg: Edgeseg) -> None:
    done = edgeseg("inspect", f"{__name__}:padded", "--size", SIZE, "--take", ".")
    assert (done.code, _rows(done.out)["size of the logits"]) == (0, "22x30")
    assert "the logits are 22x30 for a picture of 32x48, which is no stride of it" in " ".join(done.out.split())
