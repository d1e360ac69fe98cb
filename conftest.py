"""The top-level links `models`, `export` and `runtimes` point into `edgeseg/`; nothing is collected twice."""

import os

import edgeseg  # before any test imports an engine: it switches the telemetry of engines off

assert edgeseg.__version__

collect_ignore = ["models", "export", "runtimes"]

if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: more threads than that only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
