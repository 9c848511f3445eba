"""``servicelab doctor``: what the lab needs, what of it is there, and the fix beside each thing that isn't."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import clusters, kubectl
from .clusters.kind import IMAGE, free_port
from .errors import LabError
from .state import state_dir

FREE_MB = 500
PORTS = (30080, 30443)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        name: what was looked at.
        state: ``ok``, ``no`` (missing) or ``note`` (worth knowing, nothing to mend).
        saw: what was found.
        fix: what to do when it is missing.
        needed_for: ``all``, ``pocket`` or ``kind``.
    """

    name: str
    state: str
    saw: str
    fix: str = ""
    needed_for: str = "all"


def examine() -> list[Finding]:
    """Looks at everything; a probe that itself fails becomes a finding, never an exception."""
    probes: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", python), ("Python packages", packages), ("kubectl", kubectl_program), ("state directory", state_directory),
        ("disk", disk), ("ports", ports), ("user namespaces", user_namespaces),
        *[(name, lambda name=name, package=package: program(name, package)) for name, package in PROGRAMS],
        ("Docker", docker), ("kind", kind), ("kind node image", kind_image),
    ]  # fmt: skip
    findings = []
    for name, probe in probes:
        try:
            findings.append(probe())
        except (LabError, OSError, subprocess.SubprocessError) as error:
            findings.append(Finding(name, "no", f"could not be looked at: {error}"))
    return findings


def usable_clusters(findings: list[Finding]) -> dict[str, str]:
    """For kind and pocket: "" if it can be used here, else what is missing."""
    answer = {}
    for cluster in ("pocket", "kind"):
        missing = [f.name for f in findings if f.state == "no" and f.needed_for in ("all", cluster)]
        if cluster == "pocket" and sys.platform != "linux":
            missing.insert(0, "Linux")
        answer[cluster] = ", ".join(missing)
    return answer


# -- one probe for each thing ---------------------------------------------------------------------------------------------


def python() -> Finding:
    """Python 3.10 or newer."""
    ok = sys.version_info >= (3, 10)
    return Finding("Python", "ok" if ok else "no", f"{platform.python_version()} ({sys.executable})", "install Python 3.10 or newer")


def packages() -> Finding:
    """The Python packages that the lab imports."""
    wanted = (
        "aiohttp",
        "anywidget",
        "cryptography",
        "dnslib",
        "httpx",
        "jupyterlab",
        "kr8s",
        "pandas",
        "papermill",
        "pyroute2",
        "rich",
        "yaml",
    )
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    fix = "./lab doctor makes the environment; or: python -m pip install -r requirements.txt"
    return Finding("Python packages", "no" if missing else "ok", f"missing: {', '.join(missing)}" if missing else "all there", fix)


def kubectl_program() -> Finding:
    """A kubectl that is new enough."""
    try:
        program = kubectl.find()
    except LabError as error:
        return Finding("kubectl", "no", "none that is 1.28 or newer", str(error))
    major, minor = kubectl.version_of(program) or (0, 0)
    return Finding("kubectl", "ok", f"{major}.{minor} ({program})")


def state_directory() -> Finding:
    """Where kubeconfigs and pocket clusters are kept."""
    path = state_dir()
    there = next(p for p in (path, *path.parents) if p.exists())
    ok = os.access(there, os.W_OK | os.X_OK) and there.is_dir()
    return Finding(
        "state directory", "ok" if ok else "no", str(path), f"make {there} writable, or set SERVICELAB_STATE to a directory that is"
    )


def disk() -> Finding:
    """Room for state, logs and notebooks."""
    there = next(p for p in (state_dir(), *state_dir().parents) if p.exists())
    free = shutil.disk_usage(there).free // 2**20
    return Finding("disk", "ok" if free >= FREE_MB else "no", f"{free} MB free at {there}", f"free {FREE_MB} MB there")


def ports() -> Finding:
    """The two node ports that this machine answers at."""
    taken = [p for p in PORTS if not free_port(p)]
    if not taken:
        return Finding("ports", "ok", "30080 and 30443 are free")
    name = " and ".join(map(str, taken))
    for cluster in (clusters.known("pocket"), clusters.known("kind")):
        if cluster.status().running and cluster.node_port_address(taken[0]):
            return Finding("ports", "ok", f"{name} in use by the lab's own {cluster.kind} cluster")
    fix = f"ss -ltnp 'sport = :{taken[0]}' names the program; kind needs these ports free, pocket takes others"
    return Finding("ports", "no", f"{name} in use by another program", fix, "kind")


def user_namespaces() -> Finding:
    """Whether an ordinary user may make network namespaces; root may anyway."""
    if sys.platform != "linux":
        return Finding("user namespaces", "no", f"{sys.platform} has none", "use kind with Docker Desktop", "pocket")
    if not shutil.which("unshare"):
        return Finding("user namespaces", "no", "can't be tried: unshare is not installed", "sudo apt-get install util-linux", "pocket")
    if os.geteuid() == 0:
        probe = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, text=True, timeout=10, check=False)
        if probe.returncode:
            fix = "this container lacks CAP_SYS_ADMIN: run it with --privileged, or use kind"
            return Finding("user namespaces", "no", f"root may not make namespaces: {probe.stderr.strip()}", fix, "pocket")
        return Finding("user namespaces", "ok", "not needed: running as root", needed_for="pocket")
    probe = subprocess.run(["unshare", "-U", "-r", "-n", "true"], capture_output=True, text=True, timeout=10, check=False)
    if probe.returncode == 0:
        return Finding("user namespaces", "ok", "allowed", needed_for="pocket")
    settings = {
        "kernel.unprivileged_userns_clone": ("0", "1"),
        "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
        "user.max_user_namespaces": ("0", "15000"),
    }
    for name, (bad, good) in settings.items():
        file = Path("/proc/sys", name.replace(".", "/"))
        if file.exists() and file.read_text().strip() == bad:
            return Finding("user namespaces", "no", f"{name} = {bad}", f"sudo sysctl -w {name}={good}", "pocket")
    return Finding("user namespaces", "no", probe.stderr.strip() or "refused", "run ./lab as root, or use kind", "pocket")


PROGRAMS = (("bwrap", "bubblewrap"), ("nft", "nftables"), ("ip", "iproute2"), ("nginx", "nginx"), ("curl", "curl"), ("busybox", "busybox"))
"""(program, Debian package) that the pocket cluster runs; `lab` installs the same."""


def program(name: str, package: str) -> Finding:
    """A system program of the pocket cluster."""
    found = shutil.which(name) or next((p for d in ("/usr/sbin", "/sbin", "/usr/local/sbin") if (p := shutil.which(f"{d}/{name}"))), None)
    return Finding(
        name, "ok" if found else "no", found or "not installed", f"sudo apt-get install {package}  (or your distribution's way)", "pocket"
    )


def docker() -> Finding:
    """A Docker daemon that answers."""
    if not shutil.which("docker"):
        return Finding("Docker", "no", "not installed", "https://docs.docker.com/engine/install/", "kind")
    asked = subprocess.run(["docker", "version", "-f", "{{.Server.Version}}"], capture_output=True, text=True, timeout=10, check=False)
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        return Finding("Docker", "no", said, "start it (sudo systemctl start docker, or Docker Desktop); be in the group docker", "kind")
    return Finding("Docker", "ok", asked.stdout.strip(), needed_for="kind")


def kind() -> Finding:
    """The program kind."""
    if not shutil.which("kind"):
        return Finding("kind", "no", "not installed", "https://kind.sigs.k8s.io/docs/user/quick-start/#installation", "kind")
    asked = subprocess.run(["kind", "version"], capture_output=True, text=True, timeout=10, check=False)
    return Finding("kind", "ok", asked.stdout.strip(), needed_for="kind")


def kind_image() -> Finding:
    """The node image: on this machine, or to be pulled."""
    image = os.environ.get("SERVICELAB_KIND_IMAGE") or IMAGE
    if not shutil.which("docker"):
        return Finding("kind node image", "note", "can't be told without Docker", needed_for="kind")
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True, timeout=10, check=False).returncode == 0:
        return Finding("kind node image", "ok", f"{image} is on this machine", needed_for="kind")
    asked = subprocess.run(["docker", "manifest", "inspect", image], capture_output=True, text=True, timeout=20, check=False)
    if asked.returncode == 0:
        return Finding("kind node image", "ok", f"{image} can be pulled (about 400 MB)", needed_for="kind")
    said = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
    fix = "check the connection; or docker load an image, and name it with SERVICELAB_KIND_IMAGE"
    return Finding("kind node image", "no", f"{image} is not on this machine and can't be pulled: {said}", fix, "kind")


def show(findings: list[Finding]) -> None:
    """Prints the findings and which clusters can be used; with nothing but Python itself, since rich may be what is missing."""
    signs = {"ok": ("✓", 32), "no": ("✗", 31), "note": ("·", 33)}

    def sign(state: str) -> str:
        mark, color = signs[state]
        return f"\x1b[{color}m{mark}\x1b[0m" if sys.stdout.isatty() else mark

    width = max(len(f.name) for f in findings)
    for f in findings:
        print(f"{sign(f.state)} {f.name:<{width}}  {f.saw}")
        if f.state == "no" and f.fix:
            only = "" if f.needed_for == "all" else f" (only for {f.needed_for})"
            print(f"  {'':<{width}}  fix{only}: {f.fix}")
    print()
    for cluster, missing in usable_clusters(findings).items():
        print(f"{sign('no' if missing else 'ok')} {cluster} cluster: {'needs ' + missing if missing else 'can be used here'}")
