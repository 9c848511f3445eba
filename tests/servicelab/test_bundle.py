"""Bundles: written and read back whole; refused in every way in which one can be wrong, with nothing of it left to be used."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from servicelab import cli
from servicelab.bundle import archive, make
from servicelab.bundle.archive import BundleError
from servicelab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = (ROOT / "requirements.txt").read_bytes()
CONTENT = {
    "lab/lab": b"#!/bin/sh\n",
    "wheels/one-1-py3-none-any.whl": os.urandom(5000),
    "bin/kind": b"#!/bin/sh\necho kind\n",
    "images/node.tar": os.urandom(300_000),
    "images/curl.tar": b"an image",
}
NODE = "kindest/node:v9"
LESSON = [{"image": "curl:1", "file": "images/curl.tar"}, {"image": "nginx:1", "in": "node image"}]


def manifest(**changes) -> dict:
    own = " ".join(archive.machine())
    said = {
        "lab": "0", "machine": own, "node_image": {"image": NODE, "file": "images/node.tar", "id": "sha256:1"}, "lesson_images": LESSON,
        "wheels": {"machine": own, "pythons": [archive.own_python()], "requirements": hashlib.sha256(REQUIREMENTS).hexdigest()},
    }  # fmt: skip
    return said | changes


@pytest.fixture
def sources(tmp_path) -> dict[str, Path]:
    made = {}
    for name, content in CONTENT.items():
        made[name] = tmp_path / "sources" / name
        made[name].parent.mkdir(parents=True, exist_ok=True)
        made[name].write_bytes(content)
    made["bin/kind"].chmod(0o755)
    return made


@pytest.fixture
def bundle(tmp_path, sources) -> Path:
    out = tmp_path / "b.tar.gz"
    archive.write(out, manifest(), sources)
    return out


def unpacked(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def refused(path: Path, folder: Path, words: str) -> None:
    """Reading it fails with these words, and leaves no file."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(BundleError, match=words):
        archive.read(path, folder)
    assert unpacked(folder) == []


def by_hand(out: Path, members: list, said: dict | bytes | None) -> Path:
    """A bundle as somebody else could have made it: members are (name, content) or TarInfo."""
    text = said if isinstance(said, bytes) else json.dumps(said).encode() if said is not None else None
    with tarfile.open(out, "w:gz") as tar:
        for member in ([(archive.MANIFEST, text)] if text is not None else []) + members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return out


def entry(name: str, content: bytes = b"x") -> dict:
    return {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


with_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="the program zstd is not here")


@pytest.mark.parametrize("form", ["b.tar.gz", pytest.param("b.tar.zst", marks=with_zstd)])
def test_what_goes_in_comes_out(tmp_path, sources, form):
    out, folder = tmp_path / form, tmp_path / "out"
    folder.mkdir()
    digest = archive.write(out, manifest(), sources)
    assert digest == hashlib.sha256(out.read_bytes()).hexdigest()
    told = []
    said = archive.read(out, folder, lambda name: not name.startswith("lab/"), lambda done, of: told.append((done, of)))
    assert said["node_image"]["image"] == NODE
    assert unpacked(folder) == sorted(name for name in CONTENT if not name.startswith("lab/"))
    for name in unpacked(folder):
        assert (folder / name).read_bytes() == CONTENT[name]
    assert os.access(folder / "bin/kind", os.X_OK) and not os.access(folder / "images/node.tar", os.X_OK)
    assert told[-1] == (out.stat().st_size, out.stat().st_size)
    assert not list(tmp_path.glob(".*.part"))
    # the same, cut off and damaged
    whole = out.read_bytes()
    for at in (len(whole) - 3, len(whole) // 2, 200):
        out.write_bytes(whole[:at])
        shutil.rmtree(folder)
        refused(out, folder, "damaged or cut off|is cut off|is not whole")
    middle = len(whole) // 2
    out.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    refused(out, folder, "damaged")


def test_a_bit_that_only_the_sum_tells(tmp_path, bundle):
    with gzip.open(bundle) as packed:
        content = bytearray(packed.read())
    content[content.index(CONTENT["images/node.tar"]) + 150_000] ^= 1
    bundle.write_bytes(gzip.compress(bytes(content), 1))
    refused(bundle, tmp_path / "out", "the sum of 'images/node.tar' is wrong. Nothing of it was used")


def test_the_sum_beside_it_is_compared(tmp_path, bundle):
    beside = bundle.with_name("b.tar.gz.sha256")
    beside.write_text(f"{archive.digest_of(bundle)}  b.tar.gz\n")
    archive.read(bundle)
    beside.write_text(f"{'0' * 64}  b.tar.gz\n")
    refused(bundle, tmp_path / "out", "is not the file that b.tar.gz.sha256 beside it names")


@pytest.mark.parametrize(
    ("name", "said", "members", "words"),
    [
        ("other tar", None, [("README", b"hello")], "no bundle of the lab: it does not begin with manifest.json"),
        ("no JSON", b"{", [], "manifest can't be read"),
        ("other format", {"format": "x", "version": 1, "files": []}, [], "its format is not 'servicelab-bundle'"),
        ("newer", {"format": archive.FORMAT, "version": 2, "files": []}, [], "form 2, and this lab reads form 1"),
        ("extra", {"format": archive.FORMAT, "version": 1, "files": []}, [("evil", b"x")], "'evil' isn't in its manifest"),
        ("missing", {"format": archive.FORMAT, "version": 1, "files": [entry("a"), entry("b")]}, [("a", b"x")], "1 members are missing"),
        ("longer", {"format": archive.FORMAT, "version": 1, "files": [entry("a")]}, [("a", b"xx")], "isn't what its manifest says"),
        ("twice", {"format": archive.FORMAT, "version": 1, "files": [entry("a")]}, [("a", b"x"), ("a", b"x")], "isn't what"),
        ("out", {"format": archive.FORMAT, "version": 1, "files": [entry("../evil")]}, [("../evil", b"x")], "can't be the name"),
        ("root", {"format": archive.FORMAT, "version": 1, "files": [entry("/evil")]}, [("/evil", b"x")], "can't be the name"),
        ("no sum", {"format": archive.FORMAT, "version": 1, "files": [{"path": "a", "size": 1}]}, [("a", b"x")], "can't be read"),
    ],
)
def test_foreign_archives(tmp_path, name, said, members, words):
    refused(by_hand(tmp_path / "b.tar.gz", members, said), tmp_path / "out", words)
    assert not (tmp_path / "evil").exists()


def test_a_link_is_no_file(tmp_path):
    link = tarfile.TarInfo("a")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = by_hand(tmp_path / "b.tar.gz", [link], {"format": archive.FORMAT, "version": 1, "files": [entry("a", b"")]})
    refused(path, tmp_path / "out", "'a' isn't what its manifest says")


def test_no_archive_at_all(tmp_path):
    refused(tmp_path / "none.tar.gz", tmp_path / "out", "There is no bundle .*none.tar.gz: No such file")
    (tmp_path / "b").write_bytes(b"")
    refused(tmp_path / "b", tmp_path / "out", "it is empty")
    (tmp_path / "b").write_bytes(b"PK\x03\x04 a zip")
    refused(tmp_path / "b", tmp_path / "out", "neither a .tar.gz nor a .tar.zst")


def test_no_room(tmp_path, bundle, monkeypatch):
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 100_000))
    refused(bundle, tmp_path / "out", "too little room .* MB are free")
    with pytest.raises(LabError, match=r"too little room .* to make the bundle"):
        make.room(tmp_path, tmp_path, 1 << 30)


def test_a_failed_write_leaves_nothing(tmp_path, sources):
    with pytest.raises(BundleError, match="can't be written"):
        archive.write(tmp_path / "b.tar.gz", manifest(), sources | {"x": tmp_path})
    (tmp_path / "taken.tar.gz").mkdir()
    with pytest.raises(BundleError, match=r"can't be written to .*Is there room"):
        archive.write(tmp_path / "taken.tar.gz", manifest(), sources)
    assert not list(tmp_path.glob("*b.tar*")) and not list(tmp_path.glob(".*part"))


@pytest.mark.parametrize(
    ("wheels", "words"),
    [
        ({"pythons": ["3.1"]}, "wheels for Python 3.1, and this is Python .*SERVICELAB_PYTHON"),
        ({"machine": "Plan9 vax"}, "wheels are for Plan9 vax"),
        ({"requirements": "0" * 64}, "another version of the lab"),
    ],
)
def test_wheels_for_something_else(tmp_path, sources, wheels, words):
    out, said = tmp_path / "b.tar.gz", manifest()
    archive.write(out, said | {"wheels": said["wheels"] | wheels}, sources)
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleError, match=words):
        archive.wheels(out, tmp_path / "out", REQUIREMENTS)


# -- the lab script ----------------------------------------------------------------------------------------------------------

PYTHON = """
echo "$*" >> {log}
case "$*" in
  *archive.py*) exec {real} "$@" ;;
  '-m venv '*) mkdir -p "$3/bin" "$3/site"; cp {own} "$3/bin/python" ;;
  *sysconfig*) dirname "$0" | sed 's/bin$/site/' ;;
  *'-m pip --isolated install'*) ls "$(echo "$*" | sed 's/.*--find-links \\([^ ]*\\) .*/\\1/')" >> {log} ;;
  '-m pip '*) exit 1 ;;
  '-m servicelab'*) echo "cluster=$SERVICELAB_CLUSTER" ;;
esac
"""


def test_the_lab_script_takes_its_packages_from_the_bundle(programs, tmp_path, bundle):
    checkout, log = tmp_path / "checkout", tmp_path / "log"
    (checkout / "lib/servicelab/bundle").mkdir(parents=True)
    for name in ("lab", "requirements.txt", "lib/servicelab/bundle/archive.py"):
        shutil.copy(ROOT / name, checkout / name)
    programs.pretend("python3", PYTHON.format(log=log, real=sys.executable, own=programs.folder / "python3"))
    programs.real("cp")

    def lab(file: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SERVICELAB_BUNDLE": file.name, **more}
        return subprocess.run(
            [str(checkout / "lab"), *words], cwd=file.parent, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(bundle.read_bytes()[:-100])
    failed = lab(cut)
    assert failed.returncode == 1 and "damaged or cut off" in failed.stderr, failed.stderr
    assert "-m pip" not in log.read_text() and "-m servicelab" not in log.read_text()
    missing = lab(tmp_path / "none.tar.gz")
    assert missing.returncode == 1 and "which is not there" in missing.stderr

    done = lab(bundle)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cluster=kind\n"
    lines = log.read_text().splitlines()
    install = next(line for line in lines if "-m pip" in line)
    assert "--no-index" in install
    assert "one-1-py3-none-any.whl" in lines
    assert not list((checkout / ".venv").glob("bundle.*"))
    assert lab(bundle, "up", "--cluster", "context:mine").stdout == "cluster=\n", "another cluster that is named is kept to"


# -- Docker and kind, pretended ------------------------------------------------------------------------------------------------

DOCKER = """
echo "docker $*" >> {log}
case "$1 $2" in
  "version "*) echo 26.1 ;;
  "image inspect") [ -e {log}.loaded ] || exit 1; echo sha256:1 ;;
  "load --quiet") {load}; touch {log}.loaded ;;
  "ps "*) printf '%s' "$(cat {log}.nodes 2>/dev/null)" ;;
  "exec "*) cat {log}.images 2>/dev/null ;;
esac
"""
KIND = """
echo "kind $*" >> {log}
case "$1 $2" in
  "create cluster") printf 't-control-plane running\\nt-worker running\\n' > {log}.nodes; echo docker.io/library/nginx:1 > {log}.images
    for word; do case $last in --kubeconfig) echo '{{}}' > "$word" ;; esac; last=$word; done ;;
  "get kubeconfig") echo '{{}}' ;;
  "load image-archive") [ -s "$3" ] && echo docker.io/library/curl:1 >> {log}.images ;;
esac
"""


class Machine:
    def __init__(self, programs, tmp_path) -> None:
        self.programs, self.log = programs, tmp_path / "docker.log"
        programs.real("cp")
        programs.real("cat")
        self.pretend()
        programs.pretend("kubectl", """case "$*" in *version*) echo '{"clientVersion": {"major": "1", "minor": "34"}}' ;; esac""")

    def pretend(self, load: str = "true", kind: str = KIND) -> None:
        self.programs.pretend("docker", DOCKER.format(log=self.log, load=load))
        self.programs.pretend("kind", kind.format(log=self.log))

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(programs, tmp_path, state, monkeypatch) -> Machine:
    from servicelab import kubectl

    kubectl.find.cache_clear()
    monkeypatch.setenv("SERVICELAB_NAME", "t")
    yield Machine(programs, tmp_path)
    kubectl.find.cache_clear()


@pytest.fixture
def config(tmp_path) -> Path:
    file = tmp_path / "kind.yaml"
    file.write_text("nodes: []\n")
    return file


def up(bundle: Path, config: Path) -> int:
    return cli.main(["up", "--cluster", "kind", "--config", str(config), "--bundle", str(bundle)])


def test_up_from_a_bundle(machine, bundle, config, state, capsys):
    assert up(bundle, config) == 0, capsys.readouterr().err
    calls = machine.calls
    loaded = next(n for n, call in enumerate(calls) if call.startswith("docker load"))
    made = next(n for n, call in enumerate(calls) if call.startswith("kind create cluster"))
    assert loaded < made and f"--image {NODE}" in calls[made]
    brought = [call for call in calls if call.startswith("kind load image-archive")]
    assert len(brought) == 1 and brought[0].endswith("images/curl.tar --name t --nodes t-control-plane,t-worker")
    assert not list(state.glob("bundle-*")), "what was unpacked is gone"
    # again: the cluster is up and has everything
    machine.log.unlink()
    assert up(bundle, config) == 0
    assert not [call for call in machine.calls if "load" in call.split()[1:3] or "create" in call]


def test_a_damaged_bundle_reaches_neither_docker_nor_kind(machine, bundle, config, state, capsys):
    content = bundle.read_bytes()
    bundle.write_bytes(content[: len(content) // 2])
    assert up(bundle, config) == 1
    assert "damaged or cut off" in capsys.readouterr().err
    assert not [call for call in machine.calls if "load" in call or "create" in call]
    assert not list(state.glob("bundle-*"))


def test_a_bundle_of_another_machine(machine, tmp_path, sources, config, capsys):
    archive.write(tmp_path / "b.tar.gz", manifest(machine="Linux s390x"), sources)
    assert up(tmp_path / "b.tar.gz", config) == 1
    assert "This bundle is for Linux s390x, and this machine is" in capsys.readouterr().err


def test_docker_that_can_not_load(machine, bundle, config, capsys):
    machine.pretend(load="echo 'no space left on device' >&2; exit 1")
    assert up(bundle, config) == 1
    assert "can't load the node image out of the bundle: no space left on device" in capsys.readouterr().err
    assert not [call for call in machine.calls if call.startswith("kind create")]


def test_a_cluster_from_another_node_image(machine, bundle, config, capsys):
    assert up(bundle, config) == 0
    Path(f"{machine.log}.images").write_text("docker.io/library/curl:1\n")
    capsys.readouterr()
    assert up(bundle, config) == 1
    assert "t-control-plane, t-worker lack nginx:1, which the bundle's node image brings along" in capsys.readouterr().err


def test_kind_comes_out_of_the_bundle(machine, bundle, config, state, monkeypatch, sources, tmp_path):
    (machine.programs.folder / "kind").unlink()
    sources["bin/kind"].write_text("#!/bin/sh\n" + KIND.format(log=machine.log))
    archive.write(tmp_path / "b.tar.gz", manifest(), sources)
    assert up(tmp_path / "b.tar.gz", config) == 0
    monkeypatch.setenv("PATH", str(machine.programs.folder))
    assert cli.main(["kubeconfig", "--cluster", "kind"]) == 0, "later commands find it, too"
    assert (state / "bin" / "kind").exists()


def test_a_bundle_is_for_kind(machine, bundle, capsys):
    assert cli.main(["up", "--cluster", "pocket", "--bundle", str(bundle)]) == 1
    assert "--bundle is for kind clusters" in capsys.readouterr().err


# -- making one ------------------------------------------------------------------------------------------------------------------


def test_the_images_of_the_lessons():
    images = make.lesson_images()
    assert any(image.startswith("nginx") for image in images) and any("curl" in image for image in images)


def test_the_labs_own_files_are_those_that_it_needs():
    names = make.own_files(ROOT)
    for name in ("lab", "requirements.txt", "lib/servicelab/bundle/archive.py", "notebooks/00-start-here.ipynb", "manifests/curl.yaml"):
        assert f"lab/{name}" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("lab/.venv", "lab/.git"))]


def test_pins_hold_for_the_asked_python():
    text = "a==1 ; python_full_version < '3.11.5'\na==2 ; python_full_version >= '3.11.5'\nb==1 ; sys_platform == 'nowhere'\n# c\nc==3\n"
    assert make.pinned("3.11.0", text) == ["a==1", "c==3"]
    assert make.pinned("3.13.99", text) == ["a==2", "c==3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "b.zip"], "let the name end in .tar.gz or .tar.zst"),
        (["--out", "/nowhere/b.tar.gz"], "can't be written to /nowhere"),
        (["--python", "2.7"], "--python 2.7: give versions such as 3.12"),
        (["--python", "3.9"], "needs 3.10 or newer"),
        ([], "image kindest/node.* is not in Docker and can't be pulled: no such host"),
    ],
)
def test_what_can_not_be_made(machine, tmp_path, monkeypatch, capsys, words, said):
    machine.programs.pretend("docker", 'case "$1" in pull) echo "no such host" >&2; exit 1 ;; image) exit 1 ;; esac')
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bundle", *words]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert not list(tmp_path.glob("*.tar.gz"))


def test_docker_is_needed(machine, tmp_path, monkeypatch, capsys):
    (machine.programs.folder / "docker").unlink()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bundle"]) == 1
    assert "Docker is not installed" in capsys.readouterr().err


def test_images_are_known_by_their_full_names():
    assert archive.full_name("quay.io/x/y:1") == "quay.io/x/y:1"
    assert archive.full_name("a/b@sha256:0") == "docker.io/a/b@sha256:0"
