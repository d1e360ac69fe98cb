"""The Predictor's stage after the engine: labels of the wanted size."""

from __future__ import annotations

import time

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.labels import as_label_map
from edgeseg.manifest import Manifest
from edgeseg.postprocess import labels_from_logits, scores_from_logits
from edgeseg.predictor.jobs import Job
from edgeseg.results import Result
from edgeseg.specs import Size
from edgeseg.timing import ms_since

__all__ = ["finish"]


def finish(job: Job, manifest: Manifest, *, labelled: bool, with_scores: bool) -> Result:
    """Turn what the engine gave into labels of the wanted size, where it is not `labelled` already."""
    start = time.perf_counter()
    scores: NDArray[np.float32] | None = None
    postprocess = manifest.postprocess
    if labelled:
        labels = as_label_map(job.raw)
    elif with_scores:
        labels, scores = scores_from_logits(job.raw, job.size, postprocess=postprocess, region=job.region)
    else:
        labels = labels_from_logits(job.raw, job.size, postprocess=postprocess, region=job.region)
    picture = None if job.picture is None else _resized(job.picture, job.size)
    job.timings["postprocess"] = ms_since(start)
    told = job.source, job.damaged, job.notes
    return Result(labels, manifest.labels, manifest.palette, picture, scores, job.timings, *told)


def _resized(picture: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    smaller = size[0] * size[1] < height * width
    resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)
