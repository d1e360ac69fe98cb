"""The top-level links `models`, `export` and `runtimes` point into `edgeseg/`; nothing is collected twice."""

import os
import signal
import threading

import edgeseg  # before any test imports an engine: it switches the telemetry of engines off

assert edgeseg.__version__

collect_ignore = ["models", "export", "runtimes"]

if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: more threads than that only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that runs tests in the background has them ignore Ctrl-C and hang-ups, and so would every command they start.
if threading.current_thread() is threading.main_thread():
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
            signal.signal(getattr(signal, name), handler)
