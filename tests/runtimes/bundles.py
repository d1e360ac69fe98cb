"""Tiny bundles for tests: one strided convolution as the network, written for the targets asked for in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg import bundle as bundles
from edgeseg.files import sha256_of
from edgeseg.images import fit_image, input_digest
from edgeseg.postprocess import labels_from_logits
from edgeseg.runtimes import BuildRequest, engine
from edgeseg.runtimes.openvino import OPENVINO_MODEL
from edgeseg.runtimes.torch import TORCH_WEIGHTS
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule, Size

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "SAMPLE_SIZE",
    "changed",
    "make_tiny_bundle",
    "picture",
    "tiny_graph",
    "tiny_network",
    "tiny_weights",
    "with_graph",
]

STRIDE = 8
SAMPLE_SIZE = (44, 52)
"""Height x width of the sample: another shape than any network here takes."""
PALETTE = ((0, 0, 0), (220, 20, 60), (0, 130, 180), (250, 170, 30), (107, 142, 35), (0, 0, 142))


def picture(size: Size = (32, 48), seed: int = 0) -> NDArray[np.uint8]:
    """A smooth random picture: uint8 (H, W, 3), RGB, C-contiguous."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    grown = cv2.resize(noise, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(grown.astype(np.uint8))


def tiny_weights(num_classes: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights of the one convolution: ``conv.weight`` (C, 3, 3, 3) and ``conv.bias`` (C,)."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((num_classes, 3, 3, 3)).astype(np.float32)
    return {"conv.weight": weight, "conv.bias": rng.standard_normal(num_classes).astype(np.float32)}


def tiny_network(*, num_classes: int = 4) -> nn.Module:
    """The network as a PyTorch module, for bundles (of 4 classes) that name ``tests.runtimes.bundles:tiny_network``."""
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, num_classes, 3, stride=STRIDE, padding=1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.conv(image)
            return logits

    return Tiny()


def tiny_graph(
    *,
    size: Size = (32, 48),
    num_classes: int = 4,
    dynamic: bool = False,
    spec: InputSpec | None = None,
    seed: int = 0,
) -> onnx.ModelProto:
    """uint8 NHWC ``image`` -> float32 ``logits``, opset 18, as edgeseg exports it."""
    height, width = ("H", "W") if dynamic else size
    nodes, constants = _stem(spec or InputSpec(), num_classes, seed)
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, num_classes, None, None])]
    if not dynamic:
        shape = [1, num_classes, -(-size[0] // STRIDE), -(-size[1] // STRIDE)]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _stem(spec: InputSpec, num_classes: int, seed: int) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """Cast, transpose, channel order, normalisation and the convolution."""
    shape = (1, 3, 1, 1)
    weights = tiny_weights(num_classes, seed)
    constants: dict[str, NDArray[Any]] = {
        "order": np.array([0, 1, 2] if spec.channel_order == "rgb" else [2, 1, 0], np.int64),
        "mean": np.array(spec.mean, np.float32).reshape(shape),
        "std": np.array(spec.std, np.float32).reshape(shape),
        "scale": np.array(spec.scale, np.float32),
        "weight": weights["conv.weight"],
        "bias": weights["conv.bias"],
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "order"], ["ordered"], axis=1),
        helper.make_node("Sub", ["ordered", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["divided"]),
        helper.make_node("Mul", ["divided", "scale"], ["normal"]),
        helper.make_node("Conv", ["normal", "weight", "bias"], ["logits"], strides=[STRIDE] * 2, pads=[1] * 4),
    ]
    return nodes, constants


def make_tiny_bundle(
    folder: Path,
    *,
    name: str = "tiny",
    targets: Iterable[str] = ("ort",),
    size: Size = (32, 48),
    num_classes: int = 4,
    dynamic: bool = False,
    align_corners: bool = False,
    spec: InputSpec | None = None,
    resize: ResizeRule | None = None,
    threshold: float = 0.0,
    seed: int = 0,
) -> bundles.Bundle:
    """Write ``NAME.edgeseg`` into `folder` with every file the targets need, and open it.

    The sample is a `picture` of `SAMPLE_SIZE`, or of the network's where the rule resizes nothing; its labels are those
    of the graph in ONNX Runtime.

    Args:
        folder: Where the bundle's folder is made.
        name: Of the bundle.
        targets: Canonical target names.
        size: Height x width of the input; any multiple of 8.
        num_classes: Channels of the logits; 1 gives two labels by `threshold`.
        dynamic: Leave height and width of the graphs free.
        align_corners: Of the postprocessing.
        spec: Of the input; by default raw RGB pixels.
        resize: Of the bundle; by default OpenCV linear stretch.
        threshold: For one logit.
        seed: Of the weights.
    """
    path = folder / f"{name}{bundles.SUFFIX}"
    path.mkdir(parents=True)
    spec = spec or InputSpec()
    wanted = tuple(targets)
    count = max(2, num_classes)
    manifest = bundles.Manifest(
        name=name,
        network="tests.runtimes.bundles:tiny_network",
        num_classes=num_classes,
        labels=tuple(f"class {index}" for index in range(count)),
        palette=tuple(PALETTE[index % len(PALETTE)] for index in range(count)),
        input_size=size,
        logit_size=(size[0] // STRIDE, size[1] // STRIDE),
        divisor=STRIDE,
        input=spec,
        resize=resize or ResizeRule(),
        postprocess=PostprocessSpec(align_corners, threshold),
        targets=wanted,
        dynamic=dynamic,
    )
    graph = tiny_graph(size=size, num_classes=num_classes, dynamic=dynamic, spec=spec, seed=seed)
    _save(graph, path / bundles.MODEL, manifest)
    for target in wanted:
        if target == "torch":
            _write_torch(path, num_classes, seed)
        elif target != "trt-rtx":  # which takes seconds, and whose tests build it
            _build(target, path, manifest, seed)
    sample_input = _write_sample(path, graph, manifest)
    bundles.write_manifest(path, replace(manifest, sample_input=sample_input, files=_hashes(path)))
    return bundles.open_bundle(path)


def changed(bundle: bundles.Bundle, *, graphs: bool = True, **changes: Any) -> bundles.Bundle:
    """The bundle with another manifest, every hash made anew, and the graphs' metadata too where asked for.

    What somebody does who writes a wrong bundle on purpose; it is not opened again.
    """
    manifest = replace(bundle.manifest, **changes)
    for file in bundle.path.rglob("*.onnx") if graphs else ():
        _save(onnx.load(file), file, manifest)
    if graphs and bundle.has(OPENVINO_MODEL):
        _build("openvino", bundle.path, manifest)
    sizes = {name: (bundle.path / name).stat().st_size for name in manifest.files}
    files = {name: sha256_of(bundle.path / name) for name in manifest.files}
    manifest = replace(manifest, files=files, sizes=sizes)
    bundles.write_manifest(bundle.path, manifest)
    return bundles.Bundle(bundle.path, manifest)


def with_graph(bundle: bundles.Bundle, file: str, graph: onnx.ModelProto) -> bundles.Bundle:
    """The bundle with one more graph, opened again."""
    path = bundle.path / file
    path.parent.mkdir(exist_ok=True)
    _save(graph, path, bundle.manifest)
    files = {**bundle.manifest.files, file: sha256_of(path)}
    sizes = {**bundle.manifest.sizes, file: path.stat().st_size}
    bundles.write_manifest(bundle.path, replace(bundle.manifest, files=files, sizes=sizes))
    return bundles.open_bundle(bundle.path)


def _save(graph: onnx.ModelProto, file: Path, manifest: bundles.Manifest) -> None:
    del graph.metadata_props[:]
    helper.set_model_props(graph, {bundles.METADATA_KEY: manifest.contract()})
    onnx.save(graph, file)


def _hashes(path: Path) -> dict[str, str]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): sha256_of(file) for file in files}


def _build(target: str, path: Path, manifest: bundles.Manifest, seed: int = 0) -> None:
    record = engine(target)
    if record.build is not None:
        nothing: Any = None  # what no engine reads here
        folded = _filled_network(manifest.num_classes, seed) if target == "ncnn" else nothing
        graph = path / bundles.MODEL
        record.build(BuildRequest(folder=path, graph=graph, manifest=manifest, network=nothing, folded=folded))


def _filled_network(num_classes: int, seed: int) -> nn.Module:
    import torch

    network = tiny_network(num_classes=num_classes)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in tiny_weights(num_classes, seed).items()})
    return network.eval()


def _write_torch(path: Path, num_classes: int, seed: int) -> None:
    from safetensors.numpy import save_file

    file = path / TORCH_WEIGHTS
    file.parent.mkdir()
    save_file(tiny_weights(num_classes, seed), file)


def _write_sample(path: Path, graph: onnx.ModelProto, manifest: bundles.Manifest) -> str:
    import onnxruntime

    size = manifest.input_size if manifest.resize.mode == "none" else SAMPLE_SIZE
    grain = np.random.default_rng(7).integers(-40, 41, (*size, 3))  # so that another filter gives other labels
    image = np.clip(picture(size).astype(int) + grain, 0, 255).astype(np.uint8)
    fitted, region = fit_image(image, manifest.input_size, manifest.resize)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(["logits"], {"image": fitted[None]})[0])
    labels = labels_from_logits(logits[0], size, postprocess=manifest.postprocess, region=region)
    cv2.imwrite(str(path / bundles.SAMPLE), image[..., ::-1])
    cv2.imwrite(str(path / bundles.SAMPLE_LABELS), labels)
    return input_digest(fitted)
