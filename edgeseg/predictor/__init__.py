"""The Predictor: a picture in, labels out, on any engine. numpy and OpenCV only.

A picture goes through four stages, each timed:

    decode        bytes to uint8 RGB
    pre           the bundle's resize rule
    infer         the engine, normalisation included
    postprocess   logits to labels of the wanted size, exactly as PyTorch's resize and argmax

An engine that labels where its logits lie (a GPU's) does the postprocessing itself, within ``infer``. The labels are
the same either way.

    predictor.py   `Predictor`: one picture, a batch, a stream, the self test
    config.py      its settings
    recipe.py      what opens it again in another process
    jobs.py        a picture between two stages; pictures grouped into batches
    prepare.py     the stages before the engine
    finish.py      the stage after the engine
    checks.py      refusals: a graph or a sample that contradicts the manifest
"""

from __future__ import annotations

from edgeseg.predictor.jobs import Failure
from edgeseg.predictor.predictor import Predictor

__all__ = ["Failure", "Predictor"]
