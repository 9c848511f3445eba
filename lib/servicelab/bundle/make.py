"""Filling a bundle: images out of Docker, wheels from the package index, kubectl and kind from this machine, and the lab's own files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from .. import __version__, kubectl
from ..clusters.kind import IMAGE
from ..errors import LabError
from . import archive

ROOT = Path(__file__).resolve().parents[3]
OWN = (
    "README.md", "deploy", "docs", "environment.yml", "kind-config.yaml", "lab", "lib", "manifests", "notebooks", "pyproject.toml",
    "requirements.txt",
)  # fmt: skip
SKIPPED = {"__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".ruff_cache"}
_META = "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"
_PYTHON = re.compile(r"3\.\d{1,2}")


@dataclass(frozen=True)
class Made:
    """A bundle that was made.

    Attributes:
        out: the file.
        digest: its SHA-256.
        node_image: the node image in it.
        lesson_images: the images of the lessons in it.
        pythons: the Python versions that it has wheels for.
        machine: operating system and processor that it is for.
    """

    out: Path
    digest: str
    node_image: str
    lesson_images: list[str]
    pythons: list[str]
    machine: tuple[str, str]


def bundle(out: Path, *, image: str | None = None, pythons: Iterable[str] | None = None) -> Made:
    """Makes a bundle, with a progress bar for each part.

    Args:
        out: the file.
        image: node image; default `$SERVICELAB_KIND_IMAGE` or the lab's own.
        pythons: versions such as "3.12" to take wheels for; default: the one that runs this.

    Raises:
        LabError, BundleError: an image or a wheel can't be had, kind or kubectl is missing, no room; says which.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    out = out.expanduser().absolute()
    if not out.name.endswith((".tar.gz", ".tgz", ".tar.zst")):
        raise LabError(f"{out.name!r} says no form: let the name end in .tar.gz or .tar.zst.")
    if out.name.endswith(".zst"):
        archive.zstd_program()
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise LabError(f"The bundle can't be written to {out.parent}: no such directory, or it isn't writable. Name another: --out FILE.")
    versions = checked_pythons(pythons)
    image = image or os.environ.get("SERVICELAB_KIND_IMAGE") or IMAGE
    programs = {"bin/kubectl": Path(kubectl.find()).resolve(), "bin/kind": _kind()}

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars, tempfile.TemporaryDirectory(prefix="servicelab-bundle-") as work:
        folder = Path(work)

        def stage(text: str, total: int | None = None) -> Callable[[int, int], None]:
            if not console.is_terminal:
                console.print(f"· {text}", markup=False, soft_wrap=True)
            for task in bars.task_ids:
                bars.remove_task(task)
            task = bars.add_task(text, total=total)
            return lambda done, of: bars.update(task, completed=done, total=of)

        stage(f"looking for {image} in Docker")
        size = have_image(image)
        room(folder, out.parent, size)
        sources: dict[str, Path] = {"images/node.tar": folder / "node.tar"}
        save([image], sources["images/node.tar"], stage(f"the node image {image}", size), size)
        images = []
        for reference in lesson_images():
            stage(f"looking for {reference}")
            entry: dict[str, str] = {"image": reference}
            if in_node_image(image, reference):
                entry["in"] = "node image"
            else:
                size = have_image(reference)
                entry["file"] = f"images/{re.sub(r'[^a-z0-9.]+', '-', reference.lower())}.tar"
                sources[entry["file"]] = folder / Path(entry["file"]).name
                save([reference], sources[entry["file"]], stage(f"the lessons' image {reference}", size), size)
            images.append(entry)
        for version in versions:
            stage(f"the Python packages for Python {version}")
            download(version, folder / "wheels")
        sources |= {f"wheels/{wheel.name}": wheel for wheel in sorted((folder / "wheels").glob("*.whl"))}
        sources |= programs
        sources |= own_files(ROOT)
        manifest = {
            "lab": __version__,
            "machine": " ".join(archive.machine()),
            "node_image": {"image": image, "file": "images/node.tar", "id": _inspect(image, "{{.Id}}")},
            "lesson_images": images,
            "wheels": {
                "machine": " ".join(archive.machine()),
                "pythons": versions,
                "requirements": hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest(),
            },
        }
        # the lab, the wheels and the programs come first: `tar -xf BUNDLE lab` finds the lab without reading the images
        order = sorted(sources, key=lambda name: (name.startswith("images/"), not name.startswith("lab/"), name))
        digest = archive.write(out, manifest, {name: sources[name] for name in order}, stage(f"writing {out.name}"))
    out.with_name(out.name + ".sha256").write_text(f"{digest}  {out.name}\n", encoding="utf-8")
    return Made(out, digest, image, [entry["image"] for entry in images], versions, archive.machine())


def checked_pythons(wanted: Iterable[str] | None) -> list[str]:
    """Versions of Python, each once.

    Raises:
        LabError: one that isn't a version, or too old for the lab.
    """
    versions = list(dict.fromkeys(wanted or [archive.own_python()]))
    for version in versions:
        if not _PYTHON.fullmatch(version) or int(version.split(".")[1]) < 10:
            raise LabError(f"--python {version}: give versions such as 3.12; the lab needs 3.10 or newer.")
    return versions


def lesson_images(manifests: Path = ROOT / "manifests") -> list[str]:
    """Every image that a manifest of the lessons names, sorted."""
    found: set[str] = set()

    def look(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("image"), str):
                found.add(value["image"])
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)

    for file in sorted(manifests.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            look(document)
    return sorted(found)


def own_files(root: Path) -> dict[str, Path]:
    """The lab's own files, as `lab/…` in the bundle: without caches, environments, or anything that a link leads out to."""
    found = {}
    for name in OWN:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            inner = path.relative_to(root)
            if path.is_file() and not path.is_symlink() and not SKIPPED & set(inner.parts) and path.suffix != ".pyc":
                found[f"lab/{inner.as_posix()}"] = path
    return found


# -- images --------------------------------------------------------------------------------------------------------------------


def have_image(image: str) -> int:
    """Makes sure that Docker has an image, and pulls it if not; its size in bytes.

    Raises:
        LabError: Docker isn't there or has no such image, and it can't be pulled.
    """
    done = _docker("image", "inspect", "--format", "{{.Size}}", image)
    if done.returncode and re.search(r"cannot connect|daemon running|permission denied", done.stderr, re.I):
        raise LabError(f"Docker does not answer, and the images come out of it: {done.stderr.strip()}")
    if done.returncode:
        pulled = _docker("pull", "--quiet", image, timeout=1800)
        if pulled.returncode:
            said = (pulled.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise LabError(
                f"The image {image} is not in Docker and can't be pulled: {said}. "
                "Make the bundle where there is a connection, or load the image first (docker load)."
            )
        done = _docker("image", "inspect", "--format", "{{.Size}}", image)
    return int(done.stdout)


def in_node_image(node_image: str, reference: str) -> bool:
    """Whether a node image brings this image along already: its containerd's database names it."""
    probe = ["--rm", "--network", "none", "--entrypoint", "grep", node_image, "-q", "-a", "-F", "-e", archive.full_name(reference), _META]
    done = _docker("run", *probe, timeout=120)
    return done.returncode == 0


def save(images: list[str], target: Path, told: Callable[[int, int], None], size: int) -> None:
    """`docker save` to a file.

    Raises:
        LabError: Docker can't, or the disk is full.
    """
    command = ["docker", "save", *images]
    with target.open("wb") as file, tempfile.TemporaryFile() as said, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=said, stdin=subprocess.DEVNULL
    ) as process:
        done = 0
        try:
            while block := process.stdout.read(archive.BLOCK):  # type: ignore[union-attr]
                file.write(block)
                done += len(block)
                told(min(done, size), size)
        except BaseException as error:
            process.kill()
            if isinstance(error, OSError):
                words = f"{images[0]} can't be saved to {target.parent}: {error.strerror}. TMPDIR names another directory."
                raise LabError(words) from error
            raise
        if process.wait():
            said.seek(0)
            raise LabError(f"Docker can't save {images[0]}: {said.read().decode(errors='replace').strip()}")


def _inspect(image: str, form: str) -> str:
    return _docker("image", "inspect", "--format", form, image).stdout.strip()


def _docker(*args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *args], capture_output=True, text=True, errors="replace", timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise LabError("Docker is not installed, and the images come out of it: https://docs.docker.com/engine/install/") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"docker {args[0]} did not end within {timeout:g} s. Is the Docker daemon stuck? Restart it.") from error


def _kind() -> Path:
    if program := shutil.which("kind"):
        return Path(program).resolve()
    raise LabError("kind is not on this machine, and the room needs it: https://kind.sigs.k8s.io/docs/user/quick-start/#installation")


def room(work: Path, out: Path, image_size: int) -> None:
    """Refuses to begin where the images would not fit.

    Raises:
        LabError: says how much is needed where.
    """
    needed = int(image_size * 1.3) + (400 << 20)  # the images for the lessons, and the wheels
    same = work.stat().st_dev == out.stat().st_dev
    for place, much in ((work, needed * 2 if same else needed), (out, needed)):
        if (free := shutil.disk_usage(place).free) < much:
            raise LabError(
                f"There is too little room in {place} to make the bundle: about {much >> 20} MB are needed, {free >> 20} MB are free. "
                "TMPDIR names another directory for what is put together, --out for the bundle."
            )


# -- wheels --------------------------------------------------------------------------------------------------------------------


def pinned(version: str, text: str) -> list[str]:
    """The lines of requirements.txt that hold for a version of Python, such as "3.11.2", on this kind of machine.

    Their markers are read here, since pip reads them for the Python that runs it whatever it is told to download for.
    """
    from packaging.requirements import Requirement

    target = {"python_version": ".".join(version.split(".")[:2]), "python_full_version": version}
    kept = []
    for line in text.splitlines():
        bare = line.split("#")[0].strip()
        if not bare:
            continue
        requirement = Requirement(bare)
        if requirement.marker is None or requirement.marker.evaluate(target):
            kept.append(f"{requirement.name}{requirement.specifier}")
    return kept


def download(version: str, folder: Path) -> None:
    """Gets the wheels that requirements.txt pins, for the first and the last releases of one version of Python on this kind of machine.

    Some packages are pinned twice, for releases before and after some 3.11.5: the room may have either.

    Raises:
        LabError: one can't be had, in pip's own words.
    """
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    folder.mkdir(exist_ok=True)
    last = pinned(f"{version}.99", text)
    _download(f"{version}.99", last, folder)
    if first := [line for line in pinned(f"{version}.0", text) if line not in last]:
        _download(f"{version}.0", first, folder)


def _download(version: str, lines: list[str], folder: Path) -> None:
    from packaging.tags import platform_tags

    python = _with_pip()
    common = ["--quiet", "--no-deps", "--disable-pip-version-check"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(lines))
        file.flush()
        words = ["download", *common, "--dest", str(folder), "-r", file.name, "--only-binary", ":all:"]
        words += ["--implementation", "cp", "--python-version", version]
        words += [word for tag in platform_tags() for word in ("--platform", tag)]
        done = _pip(python, words)
    if done.returncode:
        raise LabError(f"The Python packages for Python {version} can't be had as wheels. pip said:\n{done.stderr.strip()[-2000:]}")


def _with_pip() -> str:
    """A Python that has pip: the lab's own, else one on PATH, since environments need not have it."""
    for python in (sys.executable, *filter(None, (shutil.which("python3"), "/usr/bin/python3"))):
        if Path(python).exists() and _pip(python, ["--version"]).returncode == 0:
            return python
    raise LabError(
        f"There is no pip, and it gets the Python packages: {sys.executable} -m ensurepip, or install your system's python3-pip."
    )


def _pip(python: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "pip", *words], capture_output=True, text=True, errors="replace", check=False, timeout=1800
    )
