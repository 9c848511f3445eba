"""The `lab` script, in a checkout of its own; Python and the package manager are pretended, so that nothing is fetched or installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A Python that makes "virtual environments" whose python tells what it was asked to run.
PYTHON = r"""
log={log}
case "$*" in
  *'sys.version_info < (3, 10)'*) exit {old} ;;
  *'platform.python_version'*) echo 3.9.2 ;;
  *'import ensurepip'*) exit {no_venv} ;;
  *'version_info[:2]'*) echo 3.11 ;;
  '-m venv '*)
    echo venv >> $log; sleep {slow}
    mkdir -p "$3/bin" "$3/site"; touch "$3/pyvenv.cfg"
    cat > "$3/bin/python" <<'INNER'
#!/bin/sh
case "$*" in
  '-m pip install '*uv) exit 1 ;;
  '-m pip install '*) echo "pip $*" >> {log}; exit {pip} ;;
  *sysconfig*) dirname "$0" | sed 's/bin$/site/' ;;
  '-m servicelab'*) shift 2; echo "servicelab[$*] PYTHONPATH=$PYTHONPATH"; exit 5 ;;
esac
INNER
    chmod +x "$3/bin/python" ;;
esac
"""


class Checkout:
    def __init__(self, programs, tmp_path) -> None:
        self.programs, self.folder, self.log = programs, tmp_path / "a checkout", tmp_path / "log"
        self.folder.mkdir()
        for name in ("lab", "requirements.txt"):
            shutil.copy(ROOT / name, self.folder / name)
        for name in ("bwrap", "nft", "ip", "nginx", "curl", "busybox", "nsenter"):
            programs.pretend(name, "true")
        self.python()

    def python(self, *, old: int = 0, no_venv: int = 0, pip: int = 0, slow: float = 0) -> None:
        self.programs.pretend("python3", PYTHON.format(log=self.log, old=old, no_venv=no_venv, pip=pip, slow=slow))

    def run(self, *args: str, cwd: Path | None = None, program: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **environment}
        command = [str(program or self.folder / "lab"), *args]
        return subprocess.run(command, cwd=cwd or self.folder, env=env, capture_output=True, text=True, timeout=60, check=False)

    @property
    def done(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def checkout(programs, tmp_path) -> Checkout:
    return Checkout(programs, tmp_path)


def test_first_run_makes_the_environment_and_the_second_uses_it(checkout):
    first = checkout.run("status", "--cluster", "kind")
    assert first.returncode == 5, first.stderr
    assert first.stdout.startswith("servicelab[status --cluster kind] ")
    assert f"PYTHONPATH={checkout.folder}/lib" in first.stdout
    assert "making the Python environment" in first.stderr
    assert checkout.done == ["venv", "pip"]
    second = checkout.run("up", "a b", "--image=x y")
    assert (second.stdout.split("]")[0], second.stderr) == ("servicelab[up a b --image=x y", "")
    assert checkout.done == ["venv", "pip"]
    assert not (checkout.folder / ".venv.lock").exists()


def test_changed_requirements_make_it_anew(checkout):
    checkout.run("status")
    with open(checkout.folder / "requirements.txt", "a") as file:
        file.write("one-more==1.0\n")
    checkout.run("status")
    assert checkout.done == ["venv", "pip", "venv", "pip"]


def test_from_elsewhere_by_a_link(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to("../a checkout/lab")
    done = checkout.run("status", cwd=elsewhere, program=elsewhere / "link", SERVICELAB_VENV="env")
    assert f"PYTHONPATH={checkout.folder}/lib" in done.stdout
    assert (elsewhere / "env" / "servicelab-stamp").exists()
    assert not (checkout.folder / ".venv").exists()


def test_the_package_is_used_where_it_is(checkout):
    checkout.run("status")
    assert (checkout.folder / ".venv/site/servicelab.pth").read_text() == f"{checkout.folder}/lib\n"
    assert checkout.run("doctor", program=checkout.folder / ".venv/bin/servicelab").stdout.startswith("servicelab[doctor]")


def test_two_first_runs_at_once(checkout):
    checkout.python(slow=1)
    results = []
    threads = [threading.Thread(target=lambda: results.append(checkout.run("status"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.returncode for r in results] == [5, 5]
    assert checkout.done == ["venv", "pip"]


def test_failed_installation_is_tried_again(checkout):
    checkout.python(pip=1)
    failed = checkout.run("status")
    assert failed.returncode == 1
    assert "the Python packages can't be installed" in failed.stderr
    checkout.python()
    assert checkout.run("status").returncode == 5


def test_a_directory_with_other_things_is_left_alone(checkout, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    done = checkout.run("status", SERVICELAB_VENV=str(tmp_path / "precious"))
    assert done.returncode == 1
    assert "holds something that the lab has not made" in done.stderr
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_python_too_old(checkout):
    checkout.python(old=1)
    done = checkout.run("status")
    assert done.returncode == 1
    assert "python3 is 3.9.2, and the lab needs Python 3.10 or newer" in done.stderr


def test_no_python(checkout):
    (checkout.programs.folder / "python3").unlink()
    done = checkout.run("status")
    assert done.returncode == 1
    assert "there is no python3 on this machine" in done.stderr


def test_named_python_that_is_none(checkout):
    done = checkout.run("status", SERVICELAB_PYTHON="/does/not/exist")
    assert done.returncode == 1
    assert "SERVICELAB_PYTHON=/does/not/exist is not a Python 3.10 or newer" in done.stderr


class Root:
    """What an ordinary user or root may do, by pretended id, sudo and apt-get."""

    def __init__(self, checkout: Checkout, *, uid: int, sudo: bool = False, works: bool = True) -> None:
        self.folder, self.log = checkout.programs.folder, checkout.log
        # bwrap: not in sbin of any distribution, so that what this machine has doesn't matter
        (self.folder / "bwrap").unlink()
        checkout.programs.pretend("id", f"echo {uid}")
        bwrap = self.folder / "bwrap"
        get = f"[ $1 = update ] || touch {bwrap}; chmod +x {bwrap} 2>/dev/null; true" if works else "echo no route; exit 100"
        checkout.programs.pretend("apt-get", f'echo "apt-get-$1 $*" >> {self.log}; {get}')
        if sudo:
            checkout.programs.pretend("sudo", '[ "$1" = -n ] && shift; exec "$@"')


def test_missing_programs_are_installed_by_root(checkout):
    Root(checkout, uid=0)
    done = checkout.run("up")
    assert done.returncode == 5, done.stderr
    assert "installing bubblewrap (apt-get install -y --no-install-recommends bubblewrap)" in done.stderr
    assert checkout.done == ["apt-get-update", "apt-get-install", "venv", "pip"]


def test_missing_programs_are_installed_by_sudo(checkout):
    Root(checkout, uid=1000, sudo=True)
    done = checkout.run("up")
    assert done.returncode == 5, done.stderr
    assert "(sudo apt-get install" in done.stderr


def test_missing_programs_and_no_right_to_install_them(checkout):
    Root(checkout, uid=1000)
    done = checkout.run("test")
    assert done.returncode == 1
    assert "    sudo apt-get install -y --no-install-recommends bubblewrap\n" in done.stderr
    assert checkout.done == []


def test_installation_that_fails(checkout):
    Root(checkout, uid=0, works=False)
    done = checkout.run("up", "--cluster", "pocket")
    assert done.returncode == 1
    assert "no route" in done.stderr
    assert "that failed" in done.stderr


@pytest.mark.parametrize(
    "words", [["up", "--cluster", "kind"], ["up", "--cluster=context:mine"], ["status"], ["doctor"], ["down"], ["up", "--help"]]
)
def test_nothing_is_installed_for_what_does_not_need_it(checkout, words):
    Root(checkout, uid=0)
    assert checkout.run(*words).returncode == 5
    assert checkout.done == ["venv", "pip"]


def test_with_docker_and_kind_it_goes_on_without(checkout):
    Root(checkout, uid=1000)
    for name in ("docker", "kind"):
        checkout.programs.pretend(name, "true")
    done = checkout.run("up")
    assert done.returncode == 5
    assert "going on without them" in done.stderr


def test_an_environment_that_is_not_the_labs_is_left_alone(checkout, tmp_path):
    """SERVICELAB_VENV may name an environment that somebody works in: it must survive."""
    theirs = tmp_path / "theirs"
    (theirs / "bin").mkdir(parents=True)
    (theirs / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (theirs / "bin" / "tool").write_text("mine\n")
    run = checkout.run("status", SERVICELAB_VENV=str(theirs))
    assert run.returncode == 1
    assert "is left alone" in run.stderr
    assert (theirs / "bin" / "tool").read_text() == "mine\n"


def test_chromium_is_installed_for_tests_in_a_browser_and_only_for_them(checkout):
    checkout.programs.pretend("id", "echo 0")
    chromium = checkout.programs.folder / "chromium"
    checkout.programs.pretend("apt-get", f'echo "apt-get-$1 $*" >> {checkout.log}; touch {chromium}; chmod +x {chromium}')
    assert checkout.run("test", "tests").returncode == 5
    assert "apt-get-install" not in checkout.done
    done = checkout.run("test", "--browser", "-k", "x")
    assert done.stdout.startswith("servicelab[test --browser -k x]")
    assert "the tests in a real browser need Chromium: installing chromium" in done.stderr
    assert checkout.done.count("apt-get-install") == 1
    checkout.run("test", "--browser")
    assert checkout.done.count("apt-get-install") == 1


def test_without_chromium_and_the_right_to_install_it_the_other_tests_run(checkout):
    checkout.programs.pretend("id", "echo 1000")
    checkout.programs.pretend("apt-get", "exit 1")
    done = checkout.run("test", "--browser")
    assert done.returncode == 5
    assert "    sudo apt-get install -y --no-install-recommends chromium\n" in done.stderr
    assert "NOT TESTED in a real browser" in done.stderr
