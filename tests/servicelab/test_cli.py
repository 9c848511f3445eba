"""The servicelab command: exit codes and words, in programs of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def servicelab(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT / "lib"), "COLUMNS": "200", **environment}
    return subprocess.run([sys.executable, "-m", "servicelab", *args], env=env, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def here(cluster) -> list[str]:
    """Options that name the test cluster."""
    return ["--cluster", cluster.kind, "--name", cluster.cluster.name]


def test_help_names_every_command():
    done = servicelab("--help")
    assert done.returncode == 0
    for command in ("up", "down", "status", "kubeconfig", "shell", "doctor", "reset", "test", "lab"):
        assert f"\n    {command} " in done.stdout


def test_unknown_command():
    done = servicelab("frobnicate")
    assert done.returncode == 2
    assert "invalid choice: 'frobnicate'" in done.stderr


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_bad_port(port):
    done = servicelab("lab", f"--port={port}")
    assert done.returncode == 2
    assert "is not a port: give a number from 1 to 65535" in done.stderr


def test_status_kubeconfig_and_shell_of_a_running_cluster(here, cluster):
    done = servicelab("status", *here)
    assert done.returncode == 0
    assert done.stdout.startswith(f"✓ {cluster.kind}")
    path = servicelab("kubeconfig", *here).stdout.strip()
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(Path(path).read_text())["kind"] == "Config"
    done = servicelab("shell", *here, "kubectl", "get", "nodes", "-o", "name")
    assert done.stdout.splitlines() == [f"node/{name}" for name in sorted(cluster.nodes)]
    assert servicelab("shell", *here, "--", "sh", "-c", "exit 7").returncode == 7
    done = servicelab("shell", *here, "no-such-program")
    assert (done.returncode, done.stderr) == (1, "servicelab: 'no-such-program' can't be run: No such file or directory.\n")


def test_up_of_a_running_cluster_changes_nothing(here):
    done = servicelab("up", *here)
    assert done.returncode == 0
    assert "is up already" in done.stdout


@pytest.mark.parametrize("command", ["kubeconfig", "shell", "reset"])
def test_commands_that_need_a_cluster_say_how_to_start_one(command, tmp_path):
    done = servicelab(command, "--cluster", "pocket", "--name", "nothing-here", SERVICELAB_STATE=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "servicelab: There is no pocket cluster 'nothing-here'; servicelab up --cluster pocket makes it.\n"


def test_status_when_nothing_is_up(tmp_path):
    done = servicelab("status", "--cluster", "pocket", "--name", "nothing-here", SERVICELAB_STATE=str(tmp_path))
    assert done.returncode == 3
    assert "absent" in done.stdout


def test_reset(here, kube):
    kube.kubectl("create", "deployment", "my-nginx", "--image=nginx:1.29-alpine")
    kube.kubectl("create", "configmap", "kept")
    done = servicelab("reset", *here, "--namespace", kube.name)
    assert (done.returncode, done.stdout) == (0, "✓ what the lessons made is removed\n"), done.stderr
    assert kube.kubectl("get", "deployments", "-o", "name").stdout == ""
    assert "configmap/kept" in kube.kubectl("get", "configmaps", "-o", "name").stdout


def test_state_directory_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = servicelab("up", "--cluster", "pocket", "--name", "x", SERVICELAB_STATE=str(tmp_path / "file" / "state"))
    assert done.returncode == 1
    assert "can't keep its files in" in done.stderr
    assert "set SERVICELAB_STATE to one that is" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_that_do_not_fit():
    done = servicelab("up", "--cluster", "pocket", "--name", "x", "--image", "kindest/node:v1.34.4")
    assert done.returncode == 1
    assert "--image is for kind clusters, and this is a pocket cluster" in done.stderr


def test_unknown_context(tmp_path):
    config = tmp_path / "config"
    config.write_text("apiVersion: v1\nkind: Config\n")
    done = servicelab("up", "--cluster", "context:prod", KUBECONFIG=str(config), SERVICELAB_USER_KUBECONFIG=str(config))
    assert done.returncode == 1
    assert "There is no context 'prod' in your kubeconfig" in done.stderr
    assert "kubectl config get-contexts" in done.stderr


def test_doctor_says_the_fix_beside_what_is_missing(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    done = servicelab("doctor", PATH=str(tmp_path / "bin"), SERVICELAB_STATE=str(tmp_path / "state"))
    lines = done.stdout.splitlines()
    docker = next(i for i, line in enumerate(lines) if line.startswith("✗ Docker"))
    assert "not installed" in lines[docker]
    assert "fix (only for kind): https://docs.docker.com/engine/install/" in lines[docker + 1]
    assert any(line.startswith("✓ Python ") for line in lines)
    assert any(line.startswith("✗ kind cluster: needs ") and "Docker, kind" in line for line in lines)


def test_everything_after_test_goes_to_pytest(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text(
        "import os\n\ndef test_it():\n    assert os.environ['SERVICELAB_HEADLESS'] == '1'\n\n"
        "def test_it_fails():\n    assert False\n\ndef test_other():\n    assert False\n"
    )
    done = servicelab("test", str(file), "-k", "test_it and not other", "-p", "no:cacheprovider")
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 deselected" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("ignored", [False, True], ids=["in a terminal", "started with SIGINT ignored"])
def test_jupyterlab_opens_at_the_first_lesson_and_ends_with_a_signal(here, cluster, ignored):
    """A shell that starts a program with `&` has SIGINT ignored in it; the lab must end by it all the same."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "lib"), "JUPYTER_CONFIG_DIR": "/nonexistent"}
    command = [sys.executable, "-m", "servicelab", *here, "--no-browser"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    try:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        if ignored:
            signal.signal(signal.SIGINT, before)
    try:
        url = next((line.strip() for line in process.stdout if "http://127.0.0.1:" in line), "")
        assert "/lab/tree/notebooks/00-start-here.ipynb?token=" in url
        base, token = url.split("/lab/tree")[0], url.split("token=")[1]
        with urllib.request.urlopen(f"{base}/api/contents/README.md?token={token}", timeout=30) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{base}/api/contents/README.md", timeout=30)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 0, errors
        assert "stays up" in errors
        with pytest.raises(urllib.error.URLError):  # with the token: a neighbour's JupyterLab may have the port by now
            urllib.request.urlopen(f"{base}/api/contents/README.md?token={token}", timeout=30)
        assert cluster.cluster.status().running
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def test_jupyterlab_on_a_port_that_is_taken(here):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = servicelab("lab", *here, "--no-browser", "--port", str(port))
    assert done.returncode == 1
    assert f"Port {port} can't be used for JupyterLab: Address already in use" in done.stderr
