"""A cluster for people who want to try hopgate: `make cluster` starts one that stays, `make cluster-down` removes all of it.

`python -m tests.cluster.cluster up` starts a process that keeps a `Node`, with hopgate installed on it, until `down` ends that process.
Where it was killed, `down` removes what it left. One for each user's cache folder.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from deploy.images import build
from hopgate import cache
from tests.cluster import cgroups, helm, installed
from tests.cluster.api_server import ClusterError, eventually
from tests.cluster.node import PACKAGES, Image, Node, find_programs

# With every image to be built first.
_START_SECONDS = 900.0
_STOP_SECONDS = 60.0


class Keeping:
    """The folder of the kept cluster: `keeper.lock`, locked as long as a process keeps it and with its id inside, `keeper.log`, `node/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = folder / "node"
        self.kubeconfig = folder / "kubeconfig"
        self.log = folder / "keeper.log"
        self._lock = folder / "keeper.lock"

    def start(self, *command: str) -> None:
        """Start the process that keeps it, apart from this one; the lock is its own then, whatever becomes of this process."""
        with self._lock.open("a") as lock, self.log.open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            detached = ("setsid", "--fork", *command)
            subprocess.run(detached, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock.fileno(),), check=True)

    def keep(self) -> None:
        """Say that this process, which `start` started, keeps it."""
        self._lock.write_text(str(os.getpid()))

    def is_kept(self) -> bool:
        """Whether a process keeps it."""
        try:
            with self._lock.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def remove_remains(self) -> None:
        """Remove what its last keeper, which is gone, left behind."""
        keeper = self._lock.read_text() if self._lock.exists() else ""
        if keeper:
            cgroups.remove_of(int(keeper))

    def keeper(self) -> int:
        """The id of the process that keeps it. Raises TimeoutError when there is none."""
        return int(eventually(self._lock.read_text, "the cluster has a keeper"))


def default() -> Keeping:
    """The one in this user's cache folder."""
    return Keeping(cache.folder() / "cluster")


def up(keeping: Keeping, *, images: bool = True) -> None:
    """Start it, unless it runs. Raises ClusterError with what the process said that should have kept it."""
    if keeping.is_kept():
        return
    down(keeping)
    keeping.folder.mkdir(mode=0o700, parents=True)
    chosen = () if images else ("--without-images",)
    keeping.start(sys.executable, "-m", "tests.cluster.cluster", "keep", "--folder", str(keeping.folder), *chosen)
    eventually(lambda: keeping.kubeconfig.exists() or not keeping.is_kept(), "the cluster is up", _START_SECONDS)
    if not keeping.kubeconfig.exists():
        raise ClusterError(keeping.log.read_text().strip())


def down(keeping: Keeping) -> None:
    """End it and remove everything, also of one whose keeper was killed. Raises TimeoutError."""
    if keeping.is_kept():
        os.kill(keeping.keeper(), signal.SIGTERM)
        eventually(lambda: not keeping.is_kept(), "the cluster is gone", _STOP_SECONDS)
    if keeping.folder.exists():
        keeping.remove_remains()
        shutil.rmtree(keeping.folder)


def keep(keeping: Keeping, *, images: bool) -> None:
    """Run a cluster until SIGTERM or SIGINT. Raises ClusterError."""
    keeping.keep()
    programs = find_programs()
    if programs is None:
        raise ClusterError(f"the cluster needs root, {', '.join(PACKAGES)} and Kubernetes' programs: run `make node-tools`")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    base = build.base()
    built = build.images() if images else {}
    with Node(programs, keeping.node, image=Image(name=base.name, archive=base.archive)) as node:
        for image in built.values():
            node.load_image(image.archive)
        if images:
            installed.install(node, helm.of_this_machine(), built)
        made = keeping.folder / "kubeconfig.new"
        shutil.copy(node.server.admin.kubeconfig, made)
        made.rename(keeping.kubeconfig)
        ended.wait()
        keeping.kubeconfig.unlink()


def _told(keeping: Keeping, programs: Path, *, hopgate: bool) -> str:
    """What to do with a cluster that is up."""
    lines = [f"export KUBECONFIG={keeping.kubeconfig} PATH={programs}:$PATH", "kubectl get nodes"]
    if hopgate:
        python = sys.executable
        lines += [
            "kubectl -n hopgate get pods",
            f"{python} -m deploy.demo.apply",
            f"{Path(python).with_name('hopgate')} status --kubeconfig {keeping.kubeconfig}",
        ]
    shown = "".join(f"  {line}\n" for line in lines)
    return f"the cluster is up; in a shell:\n{shown}`make cluster-down` removes all of it\n"


def main() -> int:
    """Exit code 1 when it failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.cluster", description="Keep a cluster of one node on this machine.")
    parser.add_argument("action", choices=("up", "down", "keep"))
    parser.add_argument("--folder", type=Path, default=default().folder)
    parser.add_argument("--without-images", action="store_true", help="a cluster without hopgate and its images")
    arguments = parser.parse_args()
    keeping = Keeping(arguments.folder)
    try:
        if arguments.action == "keep":
            keep(keeping, images=not arguments.without_images)
        elif arguments.action == "down":
            down(keeping)
        else:
            up(keeping, images=not arguments.without_images)
            programs = find_programs()
            sys.stdout.write(_told(keeping, programs.server if programs else Path(), hopgate=not arguments.without_images))
    except (ClusterError, TimeoutError, build.BuildError, helm.HelmError) as error:
        sys.stderr.write(f"cluster: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
