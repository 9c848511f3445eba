"""The API client: kubeconfigs good and bad, and watches."""

from __future__ import annotations

import threading

import pytest
import yaml

from harness import eventually
from servicelab.client import ApiError, Client
from servicelab.errors import ClusterError, LabError


def test_watch_gives_what_is_there_then_what_changes_and_stops_when_told(lab, kube):
    kube.kubectl("create", "configmap", "w-a")
    stop, seen = threading.Event(), []

    def follow():
        for kind, obj in lab.client.watch("configmaps", kube.name, stop=stop):
            if obj["metadata"]["name"].startswith("w-"):
                seen.append((kind, obj["metadata"]["name"]))

    thread = threading.Thread(target=follow)
    thread.start()
    kube.wait(lambda: ("ADDED", "w-a") in seen)
    kube.kubectl("create", "configmap", "w-b")
    kube.kubectl("label", "configmap", "w-b", "x=y")
    kube.kubectl("delete", "configmap", "w-a")
    kube.wait(lambda: seen == [("ADDED", "w-a"), ("ADDED", "w-b"), ("MODIFIED", "w-b"), ("DELETED", "w-a")])
    stop.set()
    thread.join(60)  # of itself the watch would end after 240 s
    assert not thread.is_alive()


def test_a_watch_outlives_a_server_that_is_busy_and_ends_with_one_that_refuses(lab, kube, monkeypatch):
    answer = lab.client._json
    refusals = [ApiError("too many requests", 429, "TooManyRequests"), ApiError("not now", 503, "ServiceUnavailable")]

    def busy(*args, **kwargs):
        if refusals:
            raise refusals.pop(0)
        return answer(*args, **kwargs)

    monkeypatch.setattr(lab.client, "_json", busy)
    stop = threading.Event()
    kind, _ = next(lab.client.watch("configmaps", kube.name, stop=stop))
    assert (kind, refusals) == ("ADDED", [])
    refusals.append(ApiError("no", 404, "NotFound"))
    with pytest.raises(ApiError, match="no"):
        next(lab.client.watch("configmaps", kube.name, stop=stop))


def test_a_watch_whose_client_is_closed_meanwhile_just_ends(lab, kube):
    client = Client(lab.kubeconfig)
    client.close()
    assert list(client.watch("configmaps", kube.name)) == []


def test_watches_end_before_their_connections_are_closed(lab, kube, monkeypatch):
    """A socket that is closed under its reader gives its number to the next file, and TLS would write into that."""
    kube.kubectl("create", "configmap", "open")
    client, reading = Client(lab.kubeconfig), threading.Event()
    thread = threading.Thread(target=lambda: [reading.set() for _ in client.watch("configmaps", kube.name)])
    thread.start()
    busy = lambda: [each for each in client._http._transport._pool.connections if not (each.is_idle() or each.is_closed())]
    assert reading.wait(60)
    eventually(busy)  # it reads the watch
    close, left = client._http.close, []
    monkeypatch.setattr(client._http, "close", lambda: (left.append(busy()), close()))
    client.close()
    assert left == [[]]
    thread.join(60)
    assert not thread.is_alive()


def test_discovery_of_kinds_outside_of_the_table(lab):
    assert lab.client.path("namespaces", None) == "/api/v1/namespaces"
    with pytest.raises(LabError, match=r'doesn\'t have a resource type "gadgets"'):
        lab.client.list("gadgets")


def test_wrong_token(lab, kube, tmp_path):
    config = yaml.safe_load(lab.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": "stale"}
    file = tmp_path / "stale"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ApiError, match=r"(?i)unauthorized.*Run connect\(\) again") as caught:
        Client(file).list("pods", kube.name)
    assert caught.value.code == 401


def test_nobody_answers(tmp_path):
    file = tmp_path / "kubeconfig"
    cluster = {"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True}
    file.write_text(yaml.safe_dump({
        "current-context": "c", "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }))  # fmt: skip
    with pytest.raises(ClusterError, match=r"https://127.0.0.1:1 does not answer.*servicelab up starts it"):
        Client(file).list("pods", "default")


@pytest.mark.parametrize("text", ["", "{", "[]", "current-context: x\ncontexts: []\n"])
def test_damaged_kubeconfigs(tmp_path, text):
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(ClusterError, match="is not a usable kubeconfig"):
        Client(file)


def test_missing_kubeconfig(tmp_path):
    with pytest.raises(ClusterError, match=r"can't be read: No such file.*servicelab up"):
        Client(tmp_path / "none")


def test_exec_plugin_gives_the_token(lab, kube, tmp_path):
    config = yaml.safe_load(lab.kubeconfig.read_text())
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", "echo nothing useful; exit 3"],
        "interactiveMode": "Never",
    }
    config["users"][0]["user"] = {"exec": plugin}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ClusterError, match=r"credential plug-in 'sh' gave no credentials"):
        Client(file)
    token = '{"kind":"ExecCredential","status":{"token":"t0ken"}}'
    plugin["args"] = ["-c", f"echo '{token}'"]
    file.write_text(yaml.safe_dump(config))
    assert Client(file)._http.headers["Authorization"] == "Bearer t0ken"
