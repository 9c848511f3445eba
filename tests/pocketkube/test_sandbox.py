"""What a pod of the pocket cluster can see of the machine: none of the user's files, environment or processes."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from harness import Kube
from pocketkube.images import ImageError, default_pull_policy, full_name, normalize
from pocketkube.kubelet.environment import expand, quantity, service_variables
from pocketkube.kubelet.portforward import Headers
from pocketkube.kubelet.sandbox import resolve_in_root

NGINX, CURL = "nginx:1.29-alpine", "curlimages/curl:8.16.0"
pocket = pytest.mark.pocket


@pytest.fixture(scope="module")
def pods(kube: Kube) -> Kube:
    for name, image in (("root", NGINX), ("user", CURL)):
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image, "command": ["sleep", "10000"]}]},
            }
        )
    kube.wait("condition=Ready", "pod/root", "pod/user")
    return kube


@pocket
@pytest.mark.parametrize("pod", ["root", "user"])
def test_no_files_of_the_user(pods: Kube, pod: str, tmp_path: Path):
    """A file in the user's temporary directory, and every place where users keep things, are not there."""
    marker = tmp_path / f"marker-{secrets.token_hex(8)}"
    marker.write_text("private")
    for path in (
        marker,
        tmp_path,
        Path.home() / ".profile",
        Path(sys.executable),
        Path(__file__),
        Path("/etc/shadow"),
        Path("/usr/bin/python3"),
    ):
        assert pods.kubectl("exec", pod, "--", "ls", "-d", str(path), check=False).returncode != 0, f"{path} is visible"
    assert pods.exec(pod, "sh", "-c", "ls -A /tmp /mnt").split() == ["/mnt:", "/tmp:"]
    assert set(pods.exec(pod, "ls", "-A", "/home").split()) <= {"curl_user"}
    assert "root:x:0:0:root:/root:/bin/sh" in pods.exec(pod, "cat", "/etc/passwd")
    me = os.environ.get("USER") or "nobody-of-that-name"
    assert me in ("root", "nobody") or me not in pods.exec(pod, "cat", "/etc/passwd")
    found = pods.exec(pod, "sh", "-c", f"find / -xdev -name '{marker.name}' 2>/dev/null; true")
    assert found == ""


@pocket
@pytest.mark.parametrize("pod", ["root", "user"])
def test_no_mount_reveals_the_state_directory(pods: Kube, pod: str):
    targets = {line.split()[1] for line in pods.exec(pod, "cat", "/proc/mounts").splitlines()}
    allowed = {"/", "/proc", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/secrets/kubernetes.io/serviceaccount"}
    assert not {t for t in targets if t not in allowed and not t.startswith(("/proc/", "/dev/"))}


@pocket
@pytest.mark.parametrize("pod", ["root", "user"])
def test_no_environment_of_the_user(pods: Kube, pod: str):
    for source in ("env", "cat /proc/1/environ | tr '\\0' '\\n'"):
        names = {line.partition("=")[0] for line in pods.exec(pod, "sh", "-c", source).splitlines()}
        assert {n for n in names if not n.startswith("KUBERNETES_")} <= {"PATH", "HOME", "HOSTNAME", "PWD", "SHLVL", "OLDPWD", "_", ""}


@pocket
@pytest.mark.parametrize("pod", ["root", "user"])
def test_no_other_processes(pods: Kube, pod: str):
    processes = pods.exec(pod, "sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")
    commands = [line.strip() for line in processes.splitlines() if line.strip()]
    assert commands[0] == "sleep 10000"
    assert all(c.startswith(("sleep 10000", "sh -c", "tr ")) for c in commands), commands


@pocket
def test_capabilities_and_devices(pods: Kube):
    status = pods.exec("root", "cat", "/proc/1/status")
    values = {key: int(value, 16) for key, _, value in (line.partition(":\t") for line in status.splitlines()) if key.startswith("Cap")}
    assert values["CapEff"] & ~0xA80425FB == 0 and values["CapBnd"] & ~0xA80425FB == 0  # Docker's default set
    assert "NoNewPrivs:\t1" in status
    assert pods.kubectl("exec", "root", "--", "mount", "-t", "tmpfs", "x", "/mnt", check=False).returncode != 0
    devices = set(pods.exec("root", "ls", "/dev").split())
    assert devices <= {
        "console",
        "core",
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "termination-log",
        "tty",
        "urandom",
        "zero",
    }
    user = pods.exec("user", "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in user


@pocket
def test_a_writable_layer_of_its_own(pods: Kube):
    pods.exec("root", "sh", "-c", "echo changed > /etc/nginx/nginx.conf; rm /usr/share/nginx/html/50x.html")
    pods.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "other"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": NGINX, "command": ["sleep", "10000"]}]},
        }
    )
    pods.wait("condition=Ready", "pod/other")
    assert "worker_processes" in pods.exec("other", "cat", "/etc/nginx/nginx.conf")
    pods.exec("other", "test", "-e", "/usr/share/nginx/html/50x.html")


@pocket
def test_host_path_is_refused_with_a_reason(pods: Kube):
    pods.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "hostpath"},
            "spec": {
                "containers": [{"name": "c", "image": NGINX, "volumeMounts": [{"name": "h", "mountPath": "/h"}]}],
                "volumes": [{"name": "h", "hostPath": {"path": "/etc"}}],
            },
        }
    )
    pods.wait(lambda: "hostPath is not available in this cluster" in pods.kubectl("get", "events").stdout)


@pocket
def test_an_old_client_is_told_what_to_do(pods: Kube):
    """kubectl's SPDY is not spoken here; the answer says so instead of hanging."""
    env = {**os.environ, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
    process = pods.popen("exec", "root", "--", "true", env=env)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode != 0 and "use kubectl 1.31 or newer" in errors


# ------------------------------------------------------------------------------------------------- without a cluster


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.29", "docker.io/library/nginx:1.29"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        ("curlimages/curl:8.16.0", "docker.io/curlimages/curl:8.16.0"),
        ("localhost:5000/x/y:z", "localhost:5000/x/y:z"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
    ],
)
def test_image_references(reference: str, full: str):
    assert full_name(reference) == full


@pytest.mark.parametrize("reference", ["Nginx", "nginx:", "a b", "nginx:-x", "/nginx", ""])
def test_malformed_image_references(reference: str):
    with pytest.raises(ImageError) as caught:
        normalize(reference)
    assert caught.value.reason == "InvalidImageName"


def test_pull_policy_default():
    assert [default_pull_policy(r) for r in ("nginx", "nginx:latest", "nginx:1.29")] == ["Always", "Always", "IfNotPresent"]


def test_expansion_of_references():
    known = {"A": "1", "B": "$(A)"}
    assert expand("$(A) $(B) $(C) $$(A) $A $ $(A", known) == "1 $(A) $(C) $(A) $A $ $(A"


def test_quantities():
    assert [quantity(q) for q in ("250m", "1", "64Mi", "1k", "2Gi", "1e3")] == [0.25, 1, 67108864, 1000, 2147483648, 1000]


def test_service_variables_of_udp_and_several_ports():
    service = {
        "metadata": {"name": "a-b", "namespace": "x"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 53, "protocol": "UDP"}]},
    }
    assert service_variables([service]) == {
        "A_B_SERVICE_HOST": "10.96.0.9",
        "A_B_SERVICE_PORT": "53",
        "A_B_PORT": "udp://10.96.0.9:53",
        "A_B_PORT_53_UDP": "udp://10.96.0.9:53",
        "A_B_PORT_53_UDP_PROTO": "udp",
        "A_B_PORT_53_UDP_PORT": "53",
        "A_B_PORT_53_UDP_ADDR": "10.96.0.9",
    }


def test_links_are_followed_inside_a_root_only(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("../../../../etc")
    assert resolve_in_root(tmp_path, "/var/run/secrets/x") == "/run/secrets/x"
    assert resolve_in_root(tmp_path, "/up/passwd") == "/etc/passwd"
    assert resolve_in_root(tmp_path, "/../../etc") == "/etc"
    assert resolve_in_root(tmp_path, "/loop").startswith("/")


def test_spdy_headers_survive_the_way():
    """Two ends, one compression state each way, several blocks."""
    server, client = Headers(), Headers()
    for block in ({"streamtype": "error", "port": "80", "requestid": "0"}, {}, {"streamtype": "data", "port": "80", "requestid": "0"}):
        assert server.decode(client.encode(block)) == block


def test_helper_programs_say_what_is_missing(monkeypatch):
    from pocketkube import images

    monkeypatch.setattr(images.shutil, "which", lambda *_args, **_options: None)
    with pytest.raises(images.ImageError, match=r"nginx.*is not on this machine"):
        images._program("nginx")
