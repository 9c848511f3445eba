"""Taking a bundle into use: checked from end to end, then its images into Docker and onto the nodes of a kind cluster."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import ClusterError, LabError
from ..state import state_dir
from . import archive, keep_programs_on_path
from .archive import BundleError


class Opened:
    """A bundle whose sums were all right, unpacked as far as a cluster needs it.

    Attributes:
        manifest: what it says of itself.
        folder: where its images and programs are, until it is closed.
    """

    def __init__(self, manifest: dict[str, Any], folder: Path) -> None:
        self.manifest, self.folder = manifest, folder

    @property
    def node_image(self) -> str:
        """The name of the node image in it."""
        return self.manifest["node_image"]["image"]

    def load_node_image(self, progress: Callable[[str], None]) -> None:
        """`docker load` of the node image, unless Docker has that very image.

        Raises:
            ClusterError: Docker can't, or got another image than the manifest names.
        """
        wanted = self.manifest["node_image"]
        if _docker("image", "inspect", "--format", "{{.Id}}", wanted["image"]).stdout.strip() == wanted["id"]:
            progress(f"the node image {wanted['image']} is in Docker already")
            return
        progress(f"loading the node image {wanted['image']} into Docker")
        _docker_room(self.folder / wanted["file"])
        done = _docker("load", "--quiet", "--input", str(self.folder / wanted["file"]), timeout=900)
        if done.returncode:
            raise ClusterError(f"Docker can't load the node image out of the bundle: {done.stderr.strip()}. Is its disk full?")
        if _docker("image", "inspect", wanted["image"]).returncode:
            raise ClusterError(f"The bundle's node image is not the {wanted['image']!r} that its manifest names ({done.stdout.strip()}).")

    def load_lesson_images(self, cluster: Any, progress: Callable[[str], None]) -> None:
        """Puts the lessons' images onto every node that lacks one, and looks whether they are there then.

        Raises:
            ClusterError: a node has not got one of them; says which, and why.
        """
        for entry in self.manifest["lesson_images"]:
            image, nodes = entry["image"], sorted(cluster.containers())
            if lacking := [node for node in nodes if not has_image(node, image)]:
                if "file" not in entry:
                    raise ClusterError(
                        f"{', '.join(lacking)} lack {image}, which the bundle's node image brings along. The cluster was made from another "
                        f"node image: servicelab down --delete --cluster kind --name {cluster.name}, then up again with the bundle."
                    )
                progress(f"loading {image} onto {', '.join(lacking)}")
                file = str(self.folder / entry["file"])
                command = ["kind", "load", "image-archive", file, "--name", cluster.name, "--nodes", ",".join(lacking)]
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=600)
                if done.returncode:
                    raise ClusterError(f"kind can't load {image} onto the nodes: {done.stderr.strip()}")
                if still := [node for node in lacking if not has_image(node, image)]:
                    raise ClusterError(f"kind loaded {entry['file']}, and {', '.join(still)} still lack {image}.")


def has_image(node: str, image: str) -> bool:
    """Whether a kind node's container runtime has an image.

    Raises:
        ClusterError: the node can't be asked.
    """
    done = _docker("exec", node, "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
    if done.returncode:
        raise ClusterError(f"The node {node} does not say which images it has: {done.stderr.strip()}")
    return archive.full_name(image) in done.stdout.split()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Checks the whole of a bundle and unpacks its images and programs; they are gone when the block ends.

    Its kind is put on PATH where the machine has none.

    Raises:
        LabError: not a bundle, damaged, cut off, for another kind of machine, no room.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    path = path.expanduser().absolute()
    base = state_dir()
    try:
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        work = tempfile.TemporaryDirectory(prefix="bundle-", dir=base)
    except OSError as error:
        raise LabError(f"The bundle can't be unpacked in {base}: {error.strerror}. SERVICELAB_STATE names another directory.") from error
    with work:
        folder = Path(work.name)
        console = Console(stderr=True, highlight=False)
        if not console.is_terminal:
            console.print(f"· checking the bundle {path.name}", markup=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        try:
            with Progress(*columns, console=console, transient=True) as bars:
                task = bars.add_task(f"checking the bundle {path.name}", total=None)
                manifest = archive.read(
                    path, folder, lambda name: name.startswith(("images/", "bin/")),
                    lambda done, of: bars.update(task, completed=done, total=of), _fits,
                )  # fmt: skip
        except BundleError as error:
            raise LabError(str(error)) from error
        if not shutil.which("kind") and (folder / "bin" / "kind").exists():
            _keep_kind(folder / "bin" / "kind")
        yield Opened(manifest, folder)


def start(cluster: Any, path: Path, steps: Callable[[str], Any], **options: Any) -> bool:
    """Starts a kind cluster from a bundle, or brings one that is up the images that it lacks. Whether it had to be started.

    Args:
        cluster: the kind cluster.
        path: the bundle.
        steps: a context manager that gives what shows the steps.
        options: of the cluster's `start`.

    Raises:
        LabError: the bundle or the cluster can't be used; says why.
    """
    if _docker("version", "--format", "{{.Server.Version}}").returncode:  # before a gigabyte is read in vain
        raise ClusterError("Docker does not answer, and kind's nodes run in it. Start it (systemctl start docker, or Docker Desktop).")
    with opened(path) as bundle, steps(f"starting the kind cluster {cluster.name} from the bundle") as progress:
        new = not cluster.status().running
        if new:
            if cluster.status().state == "absent" and not options.get("image"):
                bundle.load_node_image(progress)
                options["image"] = bundle.node_image
            cluster.start(progress, **options)
        bundle.load_lesson_images(cluster, progress)
    return new


def _keep_kind(program: Path) -> None:
    """Where there is no kind, the bundle's stays in the state directory: `down` and `kubeconfig` need it later, too."""
    kept = state_dir() / "bin"
    try:
        kept.mkdir(exist_ok=True, mode=0o700)
        shutil.copy2(program, kept / "kind")
    except OSError as error:
        raise LabError(f"The bundle's kind can't be kept in {kept}: {error.strerror}.") from error
    keep_programs_on_path()


def _fits(manifest: dict[str, Any]) -> None:
    own = " ".join(archive.machine())
    if manifest.get("machine") != own:
        raise BundleError(f"This bundle is for {manifest.get('machine')}, and this machine is {own}. Make one on such a machine.")
    names = {entry["path"] for entry in manifest["files"]}
    try:
        needed = [manifest["node_image"]["file"], *(e["file"] for e in manifest["lesson_images"] if "file" in e)]
        words = [manifest["node_image"]["image"], manifest["node_image"]["id"], *(e["image"] for e in manifest["lesson_images"])]
    except (KeyError, TypeError) as error:
        raise BundleError(f"The bundle's manifest says nothing of its images ({error!r}). Make it anew: servicelab bundle.") from error
    for name in needed:
        if name not in names:
            raise BundleError(f"The bundle has no {name}, which its manifest names. Make it anew: servicelab bundle.")
    if not all(isinstance(word, str) and word and not word.startswith("-") for word in words):
        raise BundleError("The bundle's manifest has an image without a name. Make it anew: servicelab bundle.")


def _docker_room(file: Path) -> None:
    root = _docker("info", "--format", "{{.DockerRootDir}}").stdout.strip()
    needed = file.stat().st_size * 2
    if root and Path(root).is_dir() and (free := shutil.disk_usage(root).free) < needed:
        raise ClusterError(
            f"There is too little room for the node image on Docker's disk ({root}): {needed >> 20} MB are needed, "
            f"{free >> 20} MB are free."
        )


def _docker(*args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *args], capture_output=True, text=True, errors="replace", timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise ClusterError("Docker is not installed, and kind needs it: https://docs.docker.com/engine/install/") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"docker {args[0]} did not end within {timeout:g} s. Is the Docker daemon stuck? Restart it.") from error
