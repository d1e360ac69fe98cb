"""Build hook: compile the postprocessing into the wheel, or leave it to numpy where there is no C++ compiler."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent / "cpp"))

from build_library import LIBRARY, compile_library, compiler


class CompilePostprocess(BuildHookInterface):
    """Puts ``edgeseg/postprocess/_labels.so`` into wheels; EDGESEG_COMPILE=0 leaves it out, =1 insists on it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        wish = os.environ.get("EDGESEG_COMPILE", "")
        if self.target_name != "wheel" or wish == "0":
            return
        if compiler() is None and wish != "1":
            self.app.display_warning(
                "no C++ compiler was found: edgeseg's postprocessing will run in numpy, at a half to a quarter of the "
                "speed; install one (Debian: apt install g++) and install edgeseg again"
            )
            return
        compile_library()
        build_data["artifacts"].append(LIBRARY.relative_to(self.root).as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
