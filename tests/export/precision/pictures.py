"""Pictures and a network small enough to calibrate within a second."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgeseg.export.deploy import DeployNetwork
from edgeseg.export.reference import ParitySet
from edgeseg.export.to_onnx import export_onnx, simplify
from edgeseg.graph.qdq import named
from edgeseg.images import read_image
from edgeseg.postprocess import labels_from_logits
from edgeseg.specs import InputSpec
from tests.export.networks import Tiny, own_spec

SIZE = (32, 48)


def smooth(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A picture of soft blobs, uint8 (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def write_pictures(folder: Path, count: int) -> Path:
    """A folder of pictures ``0.png``, ``1.png``, ..."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), smooth(index, (40, 60)))
    return folder


def images(folder: Path) -> list[NDArray[np.uint8]]:
    """The pictures of a folder at the network's size."""
    files = sorted(folder.iterdir())
    return [np.asarray(cv2.resize(read_image(file), SIZE[::-1]), np.uint8) for file in files]


def tiny_graph() -> tuple[onnx.ModelProto, DeployNetwork]:
    """`Tiny` as a graph, and the module it was made of."""
    deployed = DeployNetwork(Tiny().eval(), InputSpec.imagenet()).eval()
    return named(simplify(export_onnx(deployed, SIZE))), deployed


def expected_of(network: DeployNetwork, pictures: list[NDArray[np.uint8]]) -> ParitySet:
    """What fp32 PyTorch makes of pictures."""
    with torch.inference_mode():
        logits = [network(torch.from_numpy(picture[None]))[0].numpy() for picture in pictures]
    labels = [labels_from_logits(x, SIZE, postprocess=own_spec().postprocess) for x in logits]
    return ParitySet(tuple(pictures), tuple(logits), tuple(labels))
