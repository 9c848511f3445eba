"""Container images, made from the machine's own programs.

Nothing is pulled over a network: an image reference selects a program that the distribution installed (nginx, curl,
busybox), laid out in a root file system as the official image is. An image is a stack of layers, each a directory
that is built once per cluster; a container sees them through an overlay mount, with a writable layer of its own on top.

Which references exist:

=============================  ===================================================================
``nginx``                      entrypoint as the official image: ``nginx -g 'daemon off;'`` as root
``busybox``                    ``sh``
``curlimages/curl``            ``curl``, run as uid 100 (``curl_user``)
``radial/busyboxplus``         busybox and curl, ``sh``
``coredns`` (registry.k8s.io)  the pod behind kube-dns; the server itself is `pocketkube.dns`
=============================  ===================================================================

There is no registry to ask for the tags, so a tag exists when it reads like one of these images' tags: digits and dots
with suffixes of known words (``1.29-alpine``, ``latest``, ``stable-perl``, ``curl`` …). Anything else isn't found.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger(__name__)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_TAG_WORDS = (
    "latest|stable|mainline|alpine|slim|perl|otel|bookworm|bullseye|trixie|buster|glibc|musl|uclibc|curl|unstable|"
    r"alpine\d+(\.\d+)*|rc\d*|unprivileged|v?\d+(\.\d+)*"
)
_TAG = re.compile(rf"^({_TAG_WORDS})(-({_TAG_WORDS}))*$")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"^(?P<name>(?:(?P<domain>(?:[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+(?::\d+)?|localhost(?::\d+)?|[a-zA-Z0-9-]+:\d+))/)?"
    rf"{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?$"
)


class ImageError(Exception):
    """An image that can't be had; ``reason`` is the container's waiting reason (ErrImagePull, InvalidImageName, …)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Image:
    """What a runtime knows of an image (OCI image configuration, the fields that matter here)."""

    name: str  # as written in full: docker.io/library/nginx:1.29
    id: str  # sha256:…
    size: int  # bytes
    layers: tuple[Path, ...]  # lowest first
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""
    directory: str = "/"
    stop_signal: str = "SIGTERM"


@dataclass(frozen=True)
class _Recipe:
    layers: tuple[str, ...]
    programs: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    directory: str = "/"
    stop_signal: str = "SIGTERM"


_NGINX = _Recipe(("base", "curl", "nginx"), ("busybox", "nginx"), command=("nginx", "-g", "daemon off;"), stop_signal="SIGQUIT")
_BUSYBOX = _Recipe(("base",), ("busybox",), command=("sh",))
_CURL = _Recipe(
    ("base", "curl", "curl-entrypoint"),
    ("busybox", "curl"),
    entrypoint=("/entrypoint.sh",),
    command=("curl",),
    user="curl_user",
    directory="/home/curl_user",
)
_BUSYBOX_CURL = _Recipe(("base", "curl"), ("busybox", "curl"), command=("/bin/sh",))

_COREDNS = _Recipe(("base", "coredns"), ("busybox",), entrypoint=("/coredns",))

_RECIPES = {
    "registry.k8s.io/coredns/coredns": _COREDNS,
    "docker.io/library/nginx": _NGINX,
    "docker.io/library/busybox": _BUSYBOX,
    "docker.io/curlimages/curl": _CURL,
    "docker.io/radial/busyboxplus": _BUSYBOX_CURL,
}


def normalize(reference: str) -> tuple[str, str]:
    """The repository and tag that a reference means, as Docker reads it.

    >>> normalize("nginx")
    ('docker.io/library/nginx', 'latest')
    >>> normalize("curlimages/curl:8.16.0")
    ('docker.io/curlimages/curl', '8.16.0')

    Raises:
        ImageError: InvalidImageName, the reference is malformed.
    """
    match = _REFERENCE.match(reference)
    if not match:
        upper = reference != reference.lower() and _REFERENCE.match(reference.lower())
        why = "repository name must be lowercase" if upper else "invalid reference format"
        raise ImageError(
            "InvalidImageName", f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": {why}'
        )
    name = match["name"]
    if not match["domain"]:
        name = f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
    elif match["domain"] == "docker.io" and name.count("/") == 1:
        name = name.replace("docker.io/", "docker.io/library/", 1)
    return name, match["tag"] or ("" if match["digest"] else "latest")


def full_name(reference: str) -> str:
    """A reference with everything that it leaves out.

    >>> full_name("nginx")
    'docker.io/library/nginx:latest'

    Raises:
        ImageError: InvalidImageName, the reference is malformed.
    """
    repository, tag = normalize(reference)
    return f"{repository}:{tag}" if tag else reference


def default_pull_policy(reference: str) -> str:
    """``Always`` for the tag latest (or none), else ``IfNotPresent``: what the API server defaults to."""
    try:
        return "Always" if normalize(reference)[1] == "latest" else "IfNotPresent"
    except ImageError:
        return "IfNotPresent"


class Images:
    """The images of one cluster; layers are built below ``root`` when first asked for.

    Args:
        root: a directory of the cluster's own. Layers in it are rebuilt at every start of the cluster, since the
            programs they are copied from may have been upgraded.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root)
        self._built: dict[str, tuple[Path, str, int]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def prepare(self) -> None:
        """Builds the layers of all images that this machine has the programs for, so that the first pod doesn't wait for them."""
        for repository in _RECIPES:
            try:
                await self.pull(f"{repository}:latest")
            except ImageError as error:  # the pod that wants it is told
                _log.info("%s: %s", repository, error)

    async def pull(self, reference: str) -> Image:
        """The image that ``reference`` names.

        Raises:
            ImageError: ErrImagePull when it is none of the images above, or the machine lacks the program for it;
                InvalidImageName when the reference can't be parsed.
        """
        repository, tag = normalize(reference)
        full = full_name(reference)
        recipe = _RECIPES.get(repository)
        failed = f'failed to pull and unpack image "{full}": failed to resolve reference "{full}": '
        if recipe is None:
            raise ImageError(
                "ErrImagePull",
                failed + "pull access denied, repository does not exist or may require authorization: "
                "server message: insufficient_scope: authorization failed",
            )
        if not _TAG.match(tag):
            raise ImageError("ErrImagePull", failed + f"{full}: not found")
        layers, digest, size = [], hashlib.sha256(repository.encode()), 0
        for layer in recipe.layers:
            async with self._locks.setdefault(layer, asyncio.Lock()):
                if layer not in self._built:
                    self._built[layer] = await asyncio.to_thread(self._build, layer)
            path, layer_digest, layer_size = self._built[layer]
            layers.append(path)
            digest.update(layer_digest.encode())
            size += layer_size
        return Image(
            name=full,
            id=f"sha256:{digest.hexdigest()}",
            size=size,
            layers=tuple(layers),
            entrypoint=recipe.entrypoint,
            command=recipe.command,
            environment={"PATH": PATH},
            user=recipe.user,
            directory=recipe.directory,
            stop_signal=recipe.stop_signal,
        )

    def _build(self, layer: str) -> tuple[Path, str, int]:
        target = self._root / "layers" / layer
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        target.chmod(0o755)
        before = os.umask(0o022)
        try:
            _LAYERS[layer](target)
        finally:
            os.umask(before)
        digest, size = hashlib.sha256(), 0
        for path in sorted(target.rglob("*")):
            info = path.lstat()
            digest.update(f"{path.relative_to(target)} {info.st_mode} {info.st_size}\n".encode())
            size += info.st_size if stat.S_ISREG(info.st_mode) else 0
        return target, digest.hexdigest(), size


# ---------------------------------------------------------------------------------------------------------- layers

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
curl_user:x:{curl}:/home/curl_user:/bin/sh
nginx:x:{nginx}:/var/cache/nginx:/sbin/nologin
nobody:x:65534:65534:nobody:/:/sbin/nologin
"""
_GROUP = "root:x:0:\ncurl_group:x:{curl}:\nnginx:x:{nginx}:\nnogroup:x:65534:\n"

_NGINX_CONF = """\
user  nginx;
worker_processes  auto;

error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;

events {
    worker_connections  1024;
}

http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;

    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer" '
                      '"$http_user_agent" "$http_x_forwarded_for"';

    access_log  /var/log/nginx/access.log  main;

    sendfile           on;
    keepalive_timeout  65;
    ssl_protocols      TLSv1.2 TLSv1.3;

    include /etc/nginx/conf.d/*.conf;
}
"""
_NGINX_DEFAULT = """\
server {
    listen       80;
    server_name  localhost;

    location / {
        root   /usr/share/nginx/html;
        index  index.html index.htm;
    }

    error_page   500 502 503 504  /50x.html;
    location = /50x.html {
        root   /usr/share/nginx/html;
    }
}
"""
_PAGE = """\
<!DOCTYPE html>
<html>
<head>
<title>{title}</title>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
</body>
</html>
"""
_CURL_ENTRYPOINT = """\
#!/bin/sh
# Run a program when one is named, and curl with these options otherwise.
if [ $# -gt 0 ] && command -v "$1" >/dev/null 2>&1; then
    exec "$@"
fi
exec curl "$@"
"""


# The cluster's DNS server (pocketkube.dns) answers on sockets in this pod's network namespace. The container keeps the pod alive.
_COREDNS_ENTRYPOINT = """\
#!/bin/sh
trap 'exit 0' TERM INT
echo "The DNS server of this cluster answers on port 53 of this pod."
sleep 2147483647 &
wait
"""


def mapped_ids() -> int:
    """How many user ids exist in this user namespace: 1 for an ordinary user without a range in ``/etc/subuid``.

    With a single id every container runs as that one (shown as root): nothing else exists to change to.
    """
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return sum(int(line.split()[2]) for line in file)


def _program(name: str) -> Path:
    found = shutil.which(name, path=PATH + os.pathsep + os.environ.get("PATH", ""))
    if not found:
        raise ImageError(
            "ErrImagePull",
            f"the program {name}, which this image is made from, is not on this machine; "
            f"install the package {name} (`./lab` does it), then start the cluster again",
        )
    return Path(found)


def _install(target: Path, source: Path, directory: str = "usr/bin") -> None:
    """Copies a program and the shared libraries it is linked with."""
    destination = target / directory / source.name
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source.resolve(), destination)
    destination.chmod(0o755)
    listing = subprocess.run(["ldd", str(source)], capture_output=True, text=True, check=False, env={"PATH": PATH, "LC_ALL": "C"}).stdout
    for line in listing.splitlines():
        match = re.search(r"(/\S+) \(0x", line)
        if match:
            _library(target, Path(match[1]))


def _library(target: Path, library: Path) -> None:
    place = str(library).lstrip("/")
    if not place.startswith("usr/"):
        place = f"usr/{place}"
    destination = target / place
    if not destination.exists():
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library.resolve(), destination)


def _write(target: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _base(target: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        if name not in ("lib64", "lib32") or Path("/", name).exists():
            (target / "usr" / name).mkdir(parents=True)
            (target / name).symlink_to(f"usr/{name}")
    for name in (
        "dev",
        "proc",
        "sys",
        "root",
        "home",
        "etc",
        "run",
        "mnt",
        "tmp",
        "var/tmp",
        "var/log",
        "var/cache",
        "usr/local/bin",
        "usr/share",
    ):
        (target / name).mkdir(parents=True, exist_ok=True)
    (target / "var/run").symlink_to("../run")
    (target / "var/lock").symlink_to("../run")
    (target / "root").chmod(0o700)
    for name in ("tmp", "var/tmp"):
        (target / name).chmod(0o1777)
    busybox = _program("busybox")
    _install(target, busybox)
    applets = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True, env={"PATH": PATH}).stdout.split()
    for applet in applets:
        link = target / "usr/bin" / applet
        if not link.is_symlink() and not link.exists():
            link.symlink_to("busybox")
    if "printenv" not in applets:  # Debian's busybox is built without it; the official images' one has it
        _install(target, _program("printenv"))
    # busybox's setpriv has no --reuid, which is how a container (or a command in it) becomes another user.
    setpriv = _program("setpriv")
    (target / "usr/bin/setpriv").unlink(missing_ok=True)
    _install(target, setpriv)
    # glibc before 2.34 loads its name services at run time, so ldd doesn't list them.
    libc = next((target / "usr").rglob("libc.so.6"), None)
    if libc is not None:
        for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"):
            original = Path("/", libc.relative_to(target)).with_name(name)
            if original.exists():
                _library(target, original)
    many = mapped_ids() > 1
    _write(target, "etc/passwd", _PASSWD.format(curl="100:101:" if many else "0:0:", nginx="101:102:nginx" if many else "0:0:nginx"))
    _write(target, "etc/group", _GROUP.format(curl=101 if many else 0, nginx=102 if many else 0))
    _write(target, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    for name in ("hosts", "hostname", "resolv.conf"):
        _write(target, f"etc/{name}", "")  # mount points: the kubelet puts the pod's own files here
    for name in ("/usr/lib/os-release", "/etc/os-release"):
        if Path(name).exists():
            _write(target, "usr/lib/os-release", Path(name).read_text(encoding="utf-8"))
            (target / "etc/os-release").symlink_to("../usr/lib/os-release")
            break
    for name in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if Path(name).exists():
            _write(target, "etc/ssl/certs/ca-certificates.crt", Path(name).read_text(encoding="utf-8"))
            break


def _curl(target: Path) -> None:
    _install(target, _program("curl"))
    home = target / "home/curl_user"
    home.mkdir(parents=True)
    if mapped_ids() > 1:
        os.chown(home, 100, 101)


def _curl_entrypoint(target: Path) -> None:
    _write(target, "entrypoint.sh", _CURL_ENTRYPOINT, 0o755)


def _nginx(target: Path) -> None:
    program = _program("nginx")
    _install(target, program, "usr/sbin")
    _write(target, "etc/nginx/nginx.conf", _NGINX_CONF)
    _write(target, "etc/nginx/conf.d/default.conf", _NGINX_DEFAULT)
    for name in ("mime.types", "fastcgi_params", "scgi_params", "uwsgi_params"):
        source = Path("/etc/nginx") / name
        if source.exists():
            _write(target, f"etc/nginx/{name}", source.read_text(encoding="utf-8"))
    _write(
        target,
        "usr/share/nginx/html/index.html",
        _PAGE.format(title="Welcome to nginx!", text="This nginx serves its default page and is ready to be configured."),
    )
    _write(target, "usr/share/nginx/html/50x.html", _PAGE.format(title="An error occurred.", text="The page can't be shown now."))
    (target / "var/log/nginx").mkdir(parents=True)
    (target / "var/log/nginx/access.log").symlink_to("/dev/stdout")
    (target / "var/log/nginx/error.log").symlink_to("/dev/stderr")
    (target / "var/cache/nginx").mkdir(parents=True)
    # The directories that this build of nginx was told to keep its temporary files in must exist.
    version = subprocess.run([str(program), "-V"], capture_output=True, text=True, check=False, env={"PATH": PATH}).stderr
    for path in re.findall(r"-temp-path=(\S+)", version):
        if path.startswith("/"):
            (target / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    modules = re.search(r"--modules-path=(/\S+)", version)
    if modules:
        (target / modules[1].lstrip("/")).mkdir(parents=True, exist_ok=True)


def _coredns(target: Path) -> None:
    _write(target, "coredns", _COREDNS_ENTRYPOINT, 0o755)


_LAYERS = {"base": _base, "coredns": _coredns, "curl": _curl, "curl-entrypoint": _curl_entrypoint, "nginx": _nginx}
