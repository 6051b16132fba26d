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

from sensor.kernel import KernelError

SOURCES: Final = Path(__file__).parent / "bpf"
MAIN: Final = "sensor.bpf.c"
_NAME: Final = "sensor.bpf.o"
_PACKAGED: Final = Path(sys.prefix) / "share" / "hopgate" / "bpf" / _NAME
_REMEDY: Final = "run `make bpf` (or `python -m sensor.objects`), which needs the packages clang and libbpf-dev"


class ObjectMissingError(KernelError):
    """There is no object, or it can't be built."""

    code = "ObjectMissing"


def find() -> Path:
    """The object of these sources: `HOPGATE_BPF_OBJECT`, else the package's, else the built one. Raises ObjectMissingError."""
    given = os.environ.get("HOPGATE_BPF_OBJECT")
    places = [Path(given)] if given else [_PACKAGED, cached()]
    for place in places:
        if place.is_file():
            return place
    raise ObjectMissingError(
        f"expected the sensor's BPF object at {' or '.join(f'`{place}`' for place in places)}, found none",
        remedy="point HOPGATE_BPF_OBJECT at it, or unset it" if given else _REMEDY,
    )


def cached() -> Path:
    """Where the object of these very sources is built."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "hopgate" / f"bpf-{_digest()}" / _NAME


def build(target: Path | None = None) -> Path:
    """Compile the sources to `target`, unless that is left out and was done before. Raises ObjectMissingError."""
    place = target or cached()
    if target is None and place.is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    # linux/types.h leads to asm/, which Debian keeps in a folder of its own for each processor; -g is for BTF, which CO-RE needs.
    folder = Path("/usr/include") / f"{platform.machine()}-linux-gnu"
    clang = ("clang", "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-idirafter", str(folder), "-c", str(SOURCES / MAIN))
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as making:
        made = Path(making, _NAME)
        try:
            done = subprocess.run((*clang, "-o", str(made)), capture_output=True, text=True, check=False)
        except OSError as error:
            raise ObjectMissingError(f"the sensor's BPF object could not be built: {error}", remedy=_REMEDY) from error
        if done.returncode != 0:
            raise ObjectMissingError(f"the sensor's BPF object could not be built: {done.stderr.strip()}", remedy=_REMEDY)
        made.replace(place)
    return place


def _digest() -> str:
    """Of the sources, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        content = path.read_bytes()
        digest.update(f"{path.name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{build(Path(sys.argv[1]) if len(sys.argv) > 1 else None)}\n")
    except ObjectMissingError as error:
        sys.exit(f"error: {error}\n  {error.remedy}")
