"""A real bundle, made here and used as in a room without a network: the environment in an empty network namespace, then a cluster.

Takes some ten minutes and 4 GB, so it is asked for: `SERVICELAB_REAL_BUNDLE=yes`.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from servicelab.bundle import archive

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.kind,
    pytest.mark.skipif(os.environ.get("SERVICELAB_REAL_BUNDLE") != "yes", reason="4 GB, 10 minutes; SERVICELAB_REAL_BUNDLE=yes runs it"),
]


def run(*command: str, cwd: Path, env: dict[str, str], timeout: float = 1800) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def test_from_a_bundle_to_a_lesson(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SERVICELAB_", "PIP_", "PYTHON", "UV_", "KUBE"))}
    out = tmp_path / "class.tar.gz"
    run(sys.executable, "-m", "servicelab", "bundle", "--out", str(out), cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "lib")})
    manifest = archive.read(out)
    assert {"bin/kubectl", "bin/kind", "lab/lab", "images/node.tar"} <= {entry["path"] for entry in manifest["files"]}

    run("tar", "-xf", str(out), "lab", cwd=tmp_path, env=environment)
    checkout, name = tmp_path / "lab", f"b-{secrets.token_hex(4)}"
    environment |= {
        "SERVICELAB_BUNDLE": str(out), "SERVICELAB_STATE": str(tmp_path / "state"), "SERVICELAB_NAME": name,
        "SERVICELAB_PYTHON": sys._base_executable, "SERVICELAB_HEADLESS": "1",
    }  # fmt: skip
    nothing = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    assert "servicelab" in run(*nothing, "./lab", "--version", cwd=checkout, env=environment)

    config = tmp_path / "kind.yaml"
    config.write_text(re.sub(r"hostPort: *\d+", "hostPort: 0", (checkout / "kind-config.yaml").read_text(encoding="utf-8")))
    try:
        said = run("./lab", "up", "--config", str(config), cwd=checkout, env=environment)
        assert "checking the bundle" in said and f"kind cluster {name} is up" in said
        assert "holds" in run("./lab", "smoke", "--cluster", "kind", "--only", "00", cwd=checkout, env=environment)
    finally:
        subprocess.run(["./lab", "down", "--delete", "--cluster", "kind"], cwd=checkout, env=environment, check=False, timeout=300)
