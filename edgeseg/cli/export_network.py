"""The network that a command is given: by name, or by its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeseg.errors import UsageError
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.models.source import NetworkSource

__all__ = ["check_network", "named_network"]


def check_network(options: Mapping[str, Any], command: str) -> None:
    """Check that options name a network, before anything heavy is imported.

    Args:
        options: ``network``, ``config`` and ``trust_config``.
        command: Whose help tells more.

    Raises:
        UsageError: Neither a name nor a config is given, or no config that could run.
    """
    if options["network"] is None and options["config"] is None:
        raise UsageError(f"missing argument 'network', or its --config FILE; see edgeseg {command} --help")
    if options["config"] is None and options["trust_config"]:
        raise UsageError(f"--trust-config lets a config run; give it as --config FILE; see edgeseg {command} --help")


def named_network(options: Mapping[str, Any]) -> NetworkSource:
    """Build the network that options name.

    Args:
        options: ``network``, ``config``, ``trust_config``, ``weights``, ``weights_key`` and ``classes``.

    Raises:
        UsageError: Name and config are of different networks.
    """
    from edgeseg.models.configs.source import read_config, resolve_config
    from edgeseg.models.source import resolve_network

    name, config, trust = options["network"], options["config"], options["trust_config"]
    given: dict[str, Any] = {
        "weights": options["weights"], "weights_key": options["weights_key"], "num_classes": options["classes"],
    }  # fmt: skip
    if config is None:
        return resolve_network(name, **given)
    if name is not None:
        found = read_config(config, trust=trust).name
        if found != name:
            raise UsageError(
                f"the config '{one_line(config)}' is of '{found}', and NETWORK is '{one_line(name)}'; leave one of "
                "them out"
            )
    return resolve_config(config, **given, trust=trust)
