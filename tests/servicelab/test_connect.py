"""connect(): in a program of its own, as a notebook's kernel does it, since it changes that program's environment."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

LIB = Path(__file__).resolve().parents[2] / "lib"


def program(code: str, cluster, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python that has done ``from servicelab import connect``."""
    env = os.environ | {
        "PYTHONPATH": str(LIB), "SERVICELAB_CLUSTER": cluster.kind, "SERVICELAB_NAME": cluster.cluster.name,
        "SERVICELAB_HEADLESS": "1", **environment,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", f"from servicelab import connect\n{code}"], env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_it_points_kubectl_at_the_cluster_and_makes_the_namespace(cluster, tmp_path):
    name = f"t-connect-{secrets.token_hex(4)}"
    (tmp_path / ".kube").mkdir()
    theirs = tmp_path / ".kube" / "config"
    theirs.write_text("theirs: untouched\n")
    code = f"""
import os, subprocess
lab = connect(namespace={name!r})
lab.client.get("serviceaccounts", "default", lab.namespace)  # without it pods would be refused
command = "kubectl config view --minify -o jsonpath='{{..namespace}}'; kubectl get pods"
done = subprocess.run(command, shell=True, capture_output=True, text=True)
print(done.stdout, done.stderr)
print(oct(os.stat(os.environ["KUBECONFIG"]).st_mode & 0o777))
"""
    try:
        done = program(code, cluster, HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert f"namespace   {name}" in done.stdout
        assert f"\n{name} No resources" in done.stdout
        assert f"No resources found in {name} namespace." in done.stdout
        assert "0o600" in done.stdout
        assert theirs.read_text() == "theirs: untouched\n"
        assert list((tmp_path / ".kube").iterdir()) in (
            [theirs],
            [theirs, tmp_path / ".kube" / "cache"],
            [tmp_path / ".kube" / "cache", theirs],
        )
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def test_no_cluster_is_up(cluster, tmp_path):
    done = program("connect()", cluster, SERVICELAB_CLUSTER="pocket", SERVICELAB_NAME="nothing-here", SERVICELAB_STATE=str(tmp_path))
    assert done.returncode != 0
    assert "There is no pocket cluster 'nothing-here'; servicelab up --cluster pocket makes it." in done.stderr


def test_a_name_that_is_no_namespace(cluster):
    done = program("connect(namespace='Not A Name')", cluster)
    assert done.returncode != 0
    assert "RFC 1123 label" in done.stderr


def test_importing_is_quick_and_loads_nothing_big():
    heavy = "pandas", "kr8s", "httpx", "IPython", "rich"
    code = f"import sys, servicelab; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(LIB)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_says_what_there_is():
    code, env = "import servicelab; servicelab.conect", os.environ | {"PYTHONPATH": str(LIB)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "has no attribute 'conect'; it has Lab, check, connect, quiz" in done.stderr
