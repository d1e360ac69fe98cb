"""Train a small person/background network on photographs with masks, on a plain CPU.

    python examples/train_person.py --data people --out runs/person            # --resume goes on after Ctrl-C
    python examples/train_person.py --data people --out runs/more --init WEIGHTS.safetensors --lr 0.001 --epochs 8
    python examples/train_person.py --data people --out runs/score --evaluate runs/person/WEIGHTS.safetensors

The data folder holds images/NAME.jpg, masks/NAME.png (0 or 255), train.txt and val.txt (one NAME a line). Photographs
stay in memory as uint8. Batch order and augmentation follow from the seed and the step alone, so a resumed run equals
one that was not stopped. Random weights are first trained with the encoder alone on small pictures, which saves most of
the time. From given weights (--init) the whole network learns at full size. Scoring does what deployment does: stretch
the uint8 photograph with OpenCV's linear filter, normalise as the network's spec says, resize the logits bilinearly to
the photograph's size, argmax. Give --threads no more than the cores that are free: threads wait for each other, and a
single one that shares its core slows all.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import CheckpointError, EdgesegError, InputError, UsageError
from edgeseg.models import ModelSpec, create_model, model_spec
from edgeseg.models.families.pphumanseg import PPHumanSegLite
from edgeseg.specs import InputSpec, ResizeRule, Size, parse_size

Image = NDArray[np.uint8]
Photo = tuple[Image, Image]
"""A photograph (H, W, 3) in the network's channel order and its mask (H, W) of 0 and 255."""

STAGES = ((0.43, 1 / 2, True), (0.75, 2 / 3, True), (0.86, 1, True), (0.945, 5 / 6, False), (1.0, 1, False))
"""Up to this share of the steps: share of the size (in steps of 32 pixels), and whether only the encoder learns."""
ENCODER_COST = 0.4
"""Time of an encoder step over that of a whole step at the same size."""
WARMUP, EMA_DECAY, WEIGHT_DECAY, SCORE_EVERY = 0.02, 0.999, 0.01, 4


@dataclass(frozen=True)
class Score:
    """`foreground_iou` sums intersections and unions over all photographs; `mean_image_iou` averages theirs."""

    images: int
    foreground_iou: float
    mean_image_iou: float


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with images, masks, train.txt and val.txt")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, the weights and score.json")
    parser.add_argument("--network", default="pphumanseg_lite", help="registry name")
    parser.add_argument("--size", type=parse_size, default=(192, 192), help="HEIGHTxWIDTH")
    parser.add_argument("--epochs", type=int, default=46)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--init", type=Path, metavar="WEIGHTS", help="start from these weights, whole network at once")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    parser.add_argument("--evaluate", type=Path, metavar="WEIGHTS", help="only score these weights")
    options = parser.parse_args(arguments)
    if min(options.epochs, options.batch, options.threads) < 1:
        raise UsageError("--epochs, --batch and --threads must be at least 1")
    if model_spec(options.network).resize != ResizeRule():
        raise UsageError(
            f"{options.network} does not stretch its pictures with a linear filter, which this script does"
        )
    return options


def load_photos(folder: Path, split: str, order: str) -> list[Photo]:
    """Decode every photograph of a split."""
    listing = folder / f"{split}.txt"
    if not listing.is_file():
        raise InputError(f"no '{listing}'; expected a data folder with images, masks, train.txt and val.txt")
    photos = [load_photo(folder, name, order) for name in listing.read_text(encoding="utf-8").split()]
    if not photos:
        raise InputError(f"'{listing}' names no photograph; write one name a line")
    return photos


def load_photo(folder: Path, name: str, order: str) -> Photo:
    image = cv2.imread(str(folder / "images" / f"{name}.jpg"), cv2.IMREAD_COLOR)
    mask = cv2.imread(str(folder / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    if image is None or mask is None or image.shape[:2] != mask.shape:
        raise InputError(f"photograph '{name}' in '{folder}' lacks an image and a mask of one size that can be read")
    if order == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image.astype(np.uint8, copy=False), mask.astype(np.uint8, copy=False)


def augment(photo: Photo, size: Size, random: np.random.Generator) -> Photo:
    """Flip, zoom, stretch, rotate and move in one warp to `size`, then change the colours."""
    image, mask = photo
    (h, w), (height, width) = mask.shape, size
    zoom, aspect = 2 ** random.uniform(-0.2, 0.4), 2 ** random.uniform(-0.1, 0.1)
    scale = np.diag([zoom * aspect * width / w * random.choice((-1, 1)), zoom / aspect * height / h])
    angle = math.radians(random.uniform(-7, 7))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ scale
    reach = 0.5 * abs(zoom - 1) + 0.05
    centre = np.array([width, height]) * (0.5 + random.uniform(-reach, reach, 2))
    matrix = np.column_stack([linear, centre - linear @ np.array([w / 2, h / 2])])
    warped = [cv2.warpAffine(x, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101) for x in (image, mask)]
    return recolour(warped[0].astype(np.uint8, copy=False), random), warped[1].astype(np.uint8, copy=False)


def recolour(image: Image, random: np.random.Generator) -> Image:
    """Change gamma, the gain of each channel and saturation; turn one photograph in twenty grey."""
    levels = np.linspace(0, 1, 256)[:, None] ** (2 ** random.uniform(-0.3, 0.3))
    gains = 2 ** (random.uniform(-0.2, 0.2) + random.uniform(-0.1, 0.1, 3))
    table = np.clip(255 * levels * gains + random.uniform(-10, 10), 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[None]).astype(np.uint8, copy=False)
    saturation = 0.0 if random.random() < 0.05 else random.uniform(0.7, 1.3)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, saturation, grey, 1 - saturation, 0).astype(np.uint8, copy=False)


def to_input(images: list[Image], spec: InputSpec) -> Tensor:
    """Normalise uint8 images of one size to network input (N, 3, H, W)."""
    x = torch.from_numpy(np.stack(images)).float()
    x = (x - torch.tensor(spec.mean)) / torch.tensor(spec.std) * spec.scale
    return x.permute(0, 3, 1, 2)


def person_loss(logits: Tensor, target: Tensor, *, align_corners: bool = False) -> Tensor:
    """Compute cross entropy plus soft Jaccard over the batch, at the mask's size; `target` (N, H, W) is in 0..1."""
    margin = logits[:, 1:].float() - logits[:, :1].float()
    margin = F.interpolate(margin, size=target.shape[-2:], mode="bilinear", align_corners=align_corners)[:, 0]
    chance = margin.sigmoid()
    both = (chance * target).sum()
    jaccard = both / (chance.sum() + target.sum() - both + 1.0)
    return F.binary_cross_entropy_with_logits(margin, target) + 1.0 - jaccard


@torch.inference_mode()
def evaluate(network: nn.Module, photos: list[Photo], spec: ModelSpec, size: Size) -> Score:
    """Score a network in eval mode at the photographs' own sizes."""
    inter, union = np.zeros(len(photos)), np.zeros(len(photos))
    for i, (image, mask) in enumerate(photos):
        resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        logits = network(to_input([resized], spec.input))
        logits = F.interpolate(logits, size=mask.shape, mode="bilinear", align_corners=spec.postprocess.align_corners)
        person, truth = logits.argmax(1)[0].numpy() == 1, mask > 127
        inter[i], union[i] = (person & truth).sum(), (person | truth).sum()
    each = np.where(union > 0, inter / np.maximum(union, 1), 1.0)
    return Score(len(photos), round(float(inter.sum() / max(union.sum(), 1)), 4), round(float(each.mean()), 4))


class Student(nn.Module):
    """A network, and a 1x1 head on its encoder that learns coarse masks at less cost."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = create_model(name, num_classes=2)
        self.head = nn.Conv2d(64, 2, 1)
        self.has_encoder, self.coarse = isinstance(self.network, PPHumanSegLite), False
        norms = [part for part in self.network.modules() if isinstance(part, nn.BatchNorm2d) and part.num_features == 2]
        if norms:  # logits that end in BN and ReLU: where both are zero nothing is learnt, so start above zero
            nn.init.constant_(norms[-1].bias, 2.0)

    def forward(self, image: Tensor) -> Tensor:
        net = self.network
        if self.coarse and isinstance(net, PPHumanSegLite):
            x: Tensor = net.block2(net.block1(net.pool(net.conv_bn0(image))))
            return cast(Tensor, self.head(net.depthwise_separable0(x)))
        return cast(Tensor, net(image))


class Trainer:
    """Student, its moving average, optimiser and position of one run: what a checkpoint stores."""

    def __init__(self, options: argparse.Namespace, photos: list[Photo]) -> None:
        self.options, self.photos, self.spec = options, photos, model_spec(options.network)
        self.checkpoint = Path(options.out) / "checkpoint.pt"
        self.batch = min(options.batch, len(photos))
        self.per_epoch = len(photos) // self.batch
        self.total = options.epochs * self.per_epoch
        self.step, self.stop = 0, threading.Event()
        self.stages = STAGES if options.init is None else ((1.0, 1.0, False),)
        torch.manual_seed(options.seed)
        self.student = Student(options.network).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.init is not None:
            self.student.network.load_state_dict(create_model(options.network, weights=options.init).state_dict())
        self.ema = copy.deepcopy(self.student).eval()
        stages = [self.stage(step) for step in range(self.total)]
        self.whole_from = sum(coarse for _, coarse in stages)
        costs = [math.prod(size) * (ENCODER_COST if coarse else 1) for size, coarse in stages]
        self.work = np.cumsum([0.0, *costs]) / sum(costs)
        kernels = [p for p in self.student.parameters() if p.ndim > 1]
        others = [p for p in self.student.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=options.lr, weight_decay=WEIGHT_DECAY, fused=True)

    def save(self) -> None:
        parts = {key: getattr(self, key).state_dict() for key in ("student", "ema", "optimizer")}
        checkpoint = {**parts, "step": self.step, "random": torch.get_rng_state(), "run": self.identity()}
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(checkpoint, partial)
        partial.replace(self.checkpoint)

    def load(self) -> None:
        if not self.checkpoint.is_file():
            raise CheckpointError(f"no '{self.checkpoint}' to resume from; leave out --resume to start a run")
        checkpoint = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if checkpoint["run"] != self.identity():
            raise UsageError(
                f"'{self.checkpoint}' is of a run with {checkpoint['run']}, got {self.identity()}; use the same"
            )
        for key in ("student", "ema", "optimizer"):
            getattr(self, key).load_state_dict(checkpoint[key])
        self.step = checkpoint["step"]
        torch.set_rng_state(checkpoint["random"])

    def identity(self) -> dict[str, Any]:
        """Describe what must not change between stop and resume; epochs and learning rate may."""
        return {"network": self.options.network, "seed": self.options.seed, "batch": self.batch}

    def stage(self, step: int) -> tuple[Size, bool]:
        """Choose the size of the pictures, and whether only the encoder learns."""
        _, share, coarse = next(
            stage for stage in self.stages if step < stage[0] * self.total or stage is self.stages[-1]
        )
        height, width = (max(32, round(x * share / 32) * 32) if share < 1 else x for x in self.options.size)
        return (height, width), coarse and self.student.has_encoder

    def lr_at(self, step: int) -> float:
        """Compute the learning rate: a short warm-up, then a cosine to zero over the work (early steps are cheap)."""
        done = float(self.work[step])
        return float(self.options.lr) * min(1.0, (done + 1e-4) / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))

    def train_step(self) -> float:
        epoch, position = divmod(self.step, self.per_epoch)
        order = np.random.default_rng((self.options.seed, 0, epoch)).permutation(len(self.photos))
        chosen = order[position * self.batch : (position + 1) * self.batch]
        random = np.random.default_rng((self.options.seed, 1, self.step))
        size, self.student.coarse = self.stage(self.step)
        images, masks = zip(*(augment(self.photos[i], size, random) for i in chosen), strict=True)
        target = torch.from_numpy(np.stack(masks)).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.student(to_input(list(images), self.spec.input))
        loss: Tensor = person_loss(logits, target, align_corners=self.spec.postprocess.align_corners)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(self.step)
        self.optimizer.step()
        self.average()
        self.step += 1
        return float(loss.item())

    @torch.no_grad()
    def average(self) -> None:
        """Move the average towards the student, faster in its first steps and in the first ones with the decoder."""
        young = self.step - (self.whole_from if self.step >= self.whole_from else 0)
        share = 1 - min(EMA_DECAY, (1 + young) / (10 + young))
        for mean, value in zip(self.ema.state_dict().values(), self.student.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)

    def run(self, photos: list[Photo]) -> bool:
        """Train to the end, scoring on `photos` now and then; False where Ctrl-C stopped it."""
        while self.step < self.total and not self.stop.is_set():
            begin, first, losses = time.perf_counter(), self.step, []
            while not self.stop.is_set() and (self.step == first or self.step % self.per_epoch):
                losses.append(self.train_step())
            seconds = time.perf_counter() - begin
            self.save()
            if not self.stop.is_set():
                self.report(float(np.mean(losses)), seconds, len(losses), photos)
        return bool(self.step >= self.total)

    def report(self, loss: float, seconds: float, steps: int, photos: list[Photo]) -> None:
        (size, self.ema.coarse), epoch = self.stage(self.step - 1), self.step // self.per_epoch
        left = seconds * (1 - self.work[self.step]) / (self.work[self.step] - self.work[self.step - steps])
        where, speed = f"epoch {epoch}/{self.options.epochs}  {size[0]}x{size[1]}", steps * self.batch / seconds
        where += "  encoder" if self.ema.coarse else ""
        scored = ""
        if epoch % SCORE_EVERY == 0 or not self.ema.coarse:
            score = evaluate(self.ema, photos, self.spec, size)
            scored = f"  val IoU {score.foreground_iou:.4f} (image mean {score.mean_image_iou:.4f})"
        print(f"{where}  loss {loss:.4f}  {speed:.0f} images/s  {left / 60:.0f} min left{scored}", flush=True)

    def request_stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Finish the step, then save (the first Ctrl-C); a second one ends at once."""
        self.stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def train(options: argparse.Namespace) -> int:
    """Train, write the averaged weights, score them."""
    order = model_spec(options.network).input.channel_order
    trainer = Trainer(options, load_photos(options.data, "train", order))
    if options.resume:
        trainer.load()
    elif trainer.checkpoint.exists():
        raise UsageError(f"'{trainer.checkpoint}' exists; add --resume to go on, or choose another --out")
    before = signal.signal(signal.SIGINT, trainer.request_stop)
    try:
        finished = trainer.run(load_photos(options.data, "val", order))
    finally:
        signal.signal(signal.SIGINT, before)
    if not finished:
        at = f"stopped at step {trainer.step} of {trainer.total}"
        print(f"{at}; '{trainer.checkpoint}' is saved, go on with --resume")
        return 130
    weights = options.out / f"{options.network}_person.safetensors"
    state = trainer.ema.network.state_dict()
    tensors = {key: value.contiguous() for key, value in state.items() if value.is_floating_point()}
    partial = weights.with_suffix(".partial")
    partial.write_bytes(save(tensors))
    partial.replace(weights)
    return score_weights(options, weights)


def score_weights(options: argparse.Namespace, weights: Path) -> int:
    """Score a weights file and write score.json."""
    spec, (height, width) = model_spec(options.network), options.size
    network = create_model(options.network, num_classes=2, weights=weights)
    score = evaluate(network, load_photos(options.data, "val", spec.input.channel_order), spec, options.size)
    report = {"network": options.network, "weights": weights.name, "size": f"{height}x{width}", **asdict(score)}
    (options.out / "score.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{weights.name}: foreground IoU {score.foreground_iou:.4f}, image mean {score.mean_image_iou:.4f}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    try:
        options = parse_options(arguments)
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(1)
        options.out.mkdir(parents=True, exist_ok=True)
        return score_weights(options, options.evaluate) if options.evaluate else train(options)
    except EdgesegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
