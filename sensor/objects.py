"""The BPF objects: built by clang where packages are made, and from a checkout into the user's cache folder; then only found."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from hopgate import cache
from sensor.kernel import KernelError

SOURCES: Final = Path(__file__).parent / "bpf"
MAIN: Final = "sensor.bpf.c"
# The objects by their sources' names, each with the variable that names a file to use instead.
SENSOR: Final = "sensor"
QUARANTINE: Final = "quarantine"
_VARIABLES: Final = {SENSOR: "HOPGATE_BPF_OBJECT", QUARANTINE: "HOPGATE_QUARANTINE_OBJECT"}
_PACKAGED: Final = Path(sys.prefix) / "share" / "hopgate" / "bpf"
_REMEDY: Final = "run `make bpf` (or `python -m sensor.objects`), which needs the packages clang and libbpf-dev"


class ObjectMissingError(KernelError):
    """There is no object, or it can't be built."""

    code = "ObjectMissing"


def find(name: str = SENSOR) -> Path:
    """The object of these sources: what its variable names, else the package's, else the built one. Raises ObjectMissingError."""
    variable = _VARIABLES[name]
    given = os.environ.get(variable)
    places = [Path(given)] if given else [_PACKAGED / f"{name}.bpf.o", cached(name)]
    for place in places:
        if place.is_file():
            return place
    raise ObjectMissingError(
        f"expected the {name}'s BPF object at {' or '.join(f'`{place}`' for place in places)}, found none",
        remedy=f"point {variable} at it, or unset it" if given else _REMEDY,
    )


def cached(name: str = SENSOR) -> Path:
    """Where the object of these very sources is built."""
    return cache.folder() / f"bpf-{_digest()}" / f"{name}.bpf.o"


def build(name: str = SENSOR) -> Path:
    """Compile one object into the cache folder, unless that was done before. Raises ObjectMissingError."""
    place = cached(name)
    if not place.is_file():
        compile_source(SOURCES / f"{name}.bpf.c", place)
    return place


def compile_source(source: Path, target: Path) -> None:
    """Compile one source to an object, which is at `target` only when it is whole. Raises ObjectMissingError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # linux/types.h leads to asm/, which Debian keeps in a folder of its own for each processor; -g is for BTF, which CO-RE needs.
    folder = Path("/usr/include") / f"{platform.machine()}-linux-gnu"
    clang = ("clang", "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-idirafter", str(folder), "-c", str(source))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as making:
        made = Path(making, target.name)
        try:
            done = subprocess.run((*clang, "-o", str(made)), capture_output=True, text=True, check=False)
        except OSError as error:
            raise ObjectMissingError(f"the BPF object `{target.name}` could not be built: {error}", remedy=_REMEDY) from error
        if done.returncode != 0:
            raise ObjectMissingError(f"the BPF object `{target.name}` could not be built: {done.stderr.strip()}", remedy=_REMEDY)
        made.replace(target)


def _digest() -> str:
    """Of the sources, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        content = path.read_bytes()
        digest.update(f"{path.name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    try:
        for each in _VARIABLES:
            sys.stdout.write(f"{build(each)}\n")
    except ObjectMissingError as error:
        sys.exit(f"error: {error}\n  {error.remedy}")
