"""Kubeconfigs and tokens, and the clusters that hold no class."""

from __future__ import annotations

import base64
import json
import time

import pytest
import yaml

from servicelab.classroom import access
from servicelab.classroom.create import create, refuse_pocket
from servicelab.classroom.names import Student, numbered
from servicelab.clusters import known
from servicelab.errors import ClusterError, LabError

ADA = Student("ada", "Ada")


def token(**claims) -> str:
    part = lambda data: base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()
    account = {"namespace": "student-ada", "serviceaccount": {"name": "student", "uid": "u1"}}
    return f"{part({'alg': 'none'})}.{part({'kubernetes.io': account, **claims})}.x"


@pytest.fixture
def written(tmp_path):
    return lambda **claims: access.write(tmp_path / "ada.kubeconfig", ADA, {"server": "https://192.0.2.1:6443"}, token(**claims))


def test_a_kubeconfig_is_private_and_in_the_namespace(written):
    file = written(exp=time.time() + 3600)
    assert file.stat().st_mode & 0o777 == 0o600
    config = yaml.safe_load(file.read_text())
    wanted = {"cluster": "class", "user": "student-ada", "namespace": "student-ada"}
    assert config["contexts"] == [{"name": "student-ada", "context": wanted}]


@pytest.mark.parametrize(
    ("left", "uid", "server", "good"),
    [(2 * 86400, "u1", 1, True), (3600, "u1", 1, False), (-5, "u1", 1, False), (2 * 86400, "u2", 1, False), (2 * 86400, "u1", 2, False)],
)
def test_which_kubeconfigs_are_kept(written, left, uid, server, good):
    assert access.still_good(written(exp=time.time() + left), uid, f"https://192.0.2.{server}:6443") is good


def test_what_a_refused_student_is_told(written, tmp_path):
    expired = access.refusal(written(exp=1_900_000_000 - 10**9))
    assert "expired on 1998" in expired and "servicelab class renew ada" in expired
    assert "has renewed or deleted this account" in access.refusal(written(exp=time.time() + 3600))
    other = tmp_path / "own"
    other.write_text(yaml.safe_dump({"users": [{"name": "me", "user": {"token": "abc"}}]}))
    assert access.refusal(other) is None


def test_the_teachers_files_are_not_referred_to(tmp_path):
    (tmp_path / "ca.crt").write_bytes(b"certificate")
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"token": "the teacher's"}}],
    }
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(config))
    entry = access.server_entry(file, "https://192.0.2.9:6443/")
    assert base64.b64decode(entry["certificate-authority-data"]) == b"certificate"
    assert entry["server"] == "https://192.0.2.9:6443" and entry["tls-server-name"] == "kubernetes"
    assert "the teacher's" not in yaml.safe_dump(entry)


def test_a_directory_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"can't be kept in .*--out"):
        access.folder(known("pocket", "x"), tmp_path / "file" / "below")


def test_the_pocket_cluster_holds_no_class(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICELAB_STATE", str(tmp_path))
    for refused in (lambda: refuse_pocket(known("pocket", "x")), lambda: create(known("pocket", "x"), numbered(1))):
        with pytest.raises(ClusterError, match=r"no RBAC: every student could change every other's things.*--cluster kind"):
            refused()


def test_the_command_refuses_it_too(tmp_path, monkeypatch, capsys):
    from servicelab.cli import main

    monkeypatch.setenv("SERVICELAB_STATE", str(tmp_path))
    monkeypatch.delenv("SERVICELAB_CLUSTER", raising=False)
    monkeypatch.setenv("SERVICELAB_NAME", "x")  # --name sets it in this process: to be undone afterwards
    for command in (["create", "--students", "2"], ["list"], ["board"], ["reset", "ada"], ["delete", "--yes"]):
        assert main(["class", command[0], "--cluster", "pocket", "--name", "x", *command[1:]]) == 1
        assert "The pocket cluster has no RBAC" in capsys.readouterr().err
