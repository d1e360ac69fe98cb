"""Write constraints-hashes.txt: every pin of constraints.txt with the SHA-256 of every file the index lists of it.

Run by ``make lock``. The index is the one pip is configured with, asked through pip's own finder, so that mirrors,
certificates and folders of wheels count as they do for ``pip install``; the finder has no public name, and the pip that
is used is pinned. A pin that has no file for the oldest Python must carry a marker that says so.

torch is locked in its CPU build (``2.13.0+cpu``): in hash-checking mode pip would rather take the index's CUDA build,
which brings a dozen packages that nothing here needs.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "constraints.txt"
LOCK = ROOT / "constraints-hashes.txt"
OLDEST = "3.10"
LOCAL = {"torch": "cpu"}
HEADER = """\
# constraints.txt again, with the SHA-256 of every file the index lists of each version. Written by `make lock`.
# CI installs from here and takes nothing else: `LOCKED=1 make venv`. It is complete for CPython 3.11 on Linux x86-64
# with a CPU build of torch; elsewhere `make` uses constraints.txt.
"""


def read_pins(path: Path) -> list[Requirement]:
    """Pins of a requirements file, hashes and comments left out, in its order."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.split("#")[0].split(" --hash")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def pinned_version(pin: Requirement) -> Version:
    """Version of a ``NAME==VERSION`` line."""
    (specifier,) = pin.specifier
    return Version(specifier.version)


def locked(pin: Requirement, finder: Any) -> str:
    """A pin's lines in the lock: itself, and the hashes of its files."""
    version = pinned_version(pin)
    if pin.name in LOCAL:
        version = Version(f"{version}+{LOCAL[pin.name]}")
    links = [link for link in finder(pin.name) if _version(pin.name, link.filename) == version]
    if not links:
        raise SystemExit(
            f"lock: pip finds no file of {pin.name} {version}; expected one; change the pin, or add the index that has "
            "it to pip's configuration"
        )
    needs = {link.requires_python for link in links if link.requires_python}
    if needs and all(OLDEST not in SpecifierSet(need) for need in needs) and pin.marker is None:
        versions = " or ".join(sorted(needs))
        raise SystemExit(
            f"lock: {pin} needs Python {versions}; expected {OLDEST} too; add '; python_version >= ...' to it"
        )
    first = f"{pin.name}=={version}" + (f"; {pin.marker}" if pin.marker else "")
    return " \\\n    --hash=sha256:".join([first, *sorted({_sha256(link) for link in links})]) + "\n"


def _version(name: str, filename: str) -> Version | None:
    """Version a distribution's file name tells; None where it is a file of something else."""
    try:
        if filename.endswith(".whl"):
            found, version, _, _ = parse_wheel_filename(filename)
        else:
            found, version = parse_sdist_filename(filename)
    except ValueError:
        return None
    return version if found == canonicalize_name(name) else None


def _sha256(link: Any) -> str:
    if link.hash_name == "sha256":
        return str(link.hash)
    if link.is_file:
        return hashlib.sha256(Path(link.file_path).read_bytes()).hexdigest()
    raise SystemExit(f"lock: the index gives no SHA-256 for {link.filename}; expected one; use an index that does")


def open_finder(command: Any) -> Any:
    """A function from a project's name to links to all its files, in every index and folder pip looks at."""
    from pip._internal.index.collector import parse_links

    options, _ = command.parse_args([])
    collector = command._build_package_finder(options, command.get_default_session(options))._link_collector

    def links_of(page: Any) -> list[Any]:
        content = collector.fetch_response(page)
        return [] if content is None else list(parse_links(content))

    def find(name: str) -> list[Any]:
        found = collector.collect_sources(name, candidates_from_page=links_of)
        sources = [source for source in (*found.index_urls, *found.find_links) if source is not None]
        return [link for source in sources for link in (*source.page_candidates(), *source.file_links())]

    return find


def main() -> None:
    """Ask pip about every pin and write the lock."""
    from pip._internal.commands import create_command

    command: Any = create_command("download")
    with command.main_context():
        find = open_finder(command)
        text = HEADER + "".join(locked(pin, find) for pin in read_pins(PINS))
    LOCK.write_text(text, encoding="utf-8")
    print(f"{LOCK.name}: {len(read_pins(LOCK))} pins, {text.count('--hash')} hashes", file=sys.stderr)


if __name__ == "__main__":
    main()
