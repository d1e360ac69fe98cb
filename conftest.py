"""The top-level links `models`, `export` and `runtimes` point into `edgeseg/`; nothing is collected twice."""

collect_ignore = ["models", "export", "runtimes"]
