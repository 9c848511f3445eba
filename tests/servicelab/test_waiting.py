"""Waiting: what counts as ready, and the reason of a delay in words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from servicelab import conditions, readiness
from servicelab.errors import LabError, NotYet, WaitTimeout
from servicelab.reachability import in_the_rules


@pytest.fixture(scope="module")
def web(kube, lab):
    """Two nginx pods and their Service."""
    kube.kubectl("create", "deployment", "web", "--image=nginx:1.29-alpine", "--replicas=2", "--port=80")
    kube.kubectl("expose", "deployment", "web")
    lab.wait_for("deployment/web")
    return "web"


def test_ready_things_print_one_line(web, lab, capsys):
    for what in ("deployment/web", "service/web", "pods/app=web", f"pod/{lab.pod('app=web').name}", "configmap/kube-root-ca.crt"):
        lab.wait_for(what)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "✓ deployment/web is available (2 of 2 pods)"
    assert lines[1] == "✓ service/web has 2 ready endpoints"
    assert lines[2] == "✓ pods/app=web are ready (2 of 2)"
    assert len(lines) == 5


def test_a_service_that_is_ready_answers_on_every_node(web, kube, lab):
    # without a probe a pod is ready when nginx runs, which listens a moment later
    for pod in lab.pods("app=web")["ip"]:
        kube.wait(lambda ip=pod: lab.workers[0].run(f"curl -s -o /dev/null -w '%{{http_code}}' http://{ip}") == "200")
    lab.wait_for("service/web")
    service = lab.service("web")
    assert service.ports == (80,)
    for node in lab.nodes:
        assert node.run(f"curl -s -o /dev/null -w '%{{http_code}}' http://{service.ip}") == "200"


def test_an_endpoint_in_two_slices_counts_once():
    one = {"addresses": ["10.244.1.5"], "targetRef": {"uid": "a"}}
    assert conditions._distinct([one, one, {"addresses": ["10.244.2.6"], "targetRef": {"uid": "b"}}, {"addresses": ["192.0.2.1"]}]) == 3


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        ([{}, {}], "is available (2 of 2 pods)"),
        ([], "has 0 of 2 pods ready"),  # both were deleted, and no other is there yet
        ([{}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"ready": "False"}], "has 1 of 2 pods ready"),
    ],
)
def test_a_deployment_is_available_when_its_pods_say_so_too(pods, words):
    """Its status follows the pods a moment later: right after one was deleted it still counts that one."""
    counts = {"updatedReplicas": 2, "availableReplicas": 2, "replicas": 2, "observedGeneration": 1}
    obj = {"metadata": {"generation": 1}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}}, "status": counts}
    ready = [[{"type": "Ready", "status": pod.get("ready", "True")}] for pod in pods]
    found = [{"metadata": pod, "status": {"phase": "Running", "conditions": c}} for pod, c in zip(pods, ready, strict=True)]
    state = readiness.of_deployment(obj, {"app=web": found}.__getitem__)
    assert (state.words, state.done) == (words, words.startswith("is"))


RULES = """
table ip kube-proxy {
\tmap service-ips {
\t\telements = { 10.96.0.77 . tcp . 80 : goto service-BBBB-ns/web/tcp/ }
\t}

\tmap service-nodeports {
\t\telements = { tcp . 30080 : goto external-BBBB-ns/web/tcp/ }
\t}

\tchain endpoint-E1-ns/web/tcp/__10.244.1.5/8080 {
\t\tmeta l4proto tcp dnat to 10.244.1.5:8080
\t}

\tchain service-BBBB-ns/web/tcp/ {
\t\tnumgen random mod 1 vmap { 0 : goto endpoint-E1-ns/web/tcp/__10.244.1.5/8080 }
\t}
}
"""


@pytest.mark.parametrize(
    ("ready", "port", "follows"),
    [
        (["10.244.1.5"], {}, True),
        (["10.244.1.5"], {"nodePort": 30080}, True),
        (["10.244.1.5"], {"nodePort": 30081}, False),  # the node port was changed, and the node has the old one
        (["10.244.1.5", "10.244.2.6"], {}, False),  # a pod that came is not in the rules
        (["10.244.2.6"], {}, False),  # a pod that went still is
        (["10.244.1.5"], {"port": 81}, False),  # a Service that the node doesn't know
    ],
)
def test_a_node_follows_when_its_rules_do(ready, port, follows):
    """A connection would not tell: without a rule it leaves the cluster, and some networks have a server at any address."""
    port = {"port": 80, **port}
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in ready]
    late = {"addresses": ["10.244.1.9"], "conditions": {"ready": False}}
    slices = [{"ports": [{"name": "", "port": 8080}], "endpoints": [*endpoints, late]}]
    assert in_the_rules(RULES, {"clusterIP": "10.96.0.77"}, [port], slices) is follows


class Listed:
    """A client of a pretended cluster: a Service, its pods by address, its EndpointSlices as (owner's uid, addresses)."""

    def __init__(self, pods: list[str], slices: list[tuple[str, list[str]]]) -> None:
        ready = [{"type": "Ready", "status": "True"}]
        self._service = {"metadata": {"uid": "new"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}}
        self._lists = {
            "pods": [{"metadata": {}, "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": ready}} for ip in pods],
            "endpointslices": [
                {"metadata": {"ownerReferences": [{"kind": "Service", "uid": owner}]}, "endpoints": [{"addresses": [ip]} for ip in ips]}
                for owner, ips in slices
            ],
        }

    def get(self, kind, name, namespace):
        return self._service

    def list(self, kind, namespace, selector):
        return self._lists[kind]


@pytest.mark.parametrize(
    ("slices", "words"),
    [
        ([("new", ["10.244.1.5", "10.244.2.6"])], "has 2 ready endpoints"),
        ([("new", ["10.244.1.5"])], "has 1 ready endpoint, of 2 pods that its selector finds"),  # the pod that came isn't in it yet
        # as many as there are pods, but one of them is the pod that went
        ([("new", ["10.244.1.5", "10.244.1.4"])], "has 2 ready endpoints, of 2 pods that its selector finds"),
        ([("old", ["10.244.1.5", "10.244.2.6"])], "has no ready endpoint"),  # of the Service of that name that was deleted
        ([("old", ["10.244.1.5"]), ("new", ["10.244.1.5", "10.244.2.6"])], "has 2 ready endpoints"),
    ],
)
def test_a_service_is_ready_when_its_own_slices_have_its_pods(slices, words):
    lab = SimpleNamespace(client=Listed(["10.244.1.5", "10.244.2.6"], slices), quick_nodes=False)
    state = conditions.ReachableService(lab, "default", "web")()
    assert (state.words, state.done) == (words, words == "has 2 ready endpoints")


def test_image_that_can_not_be_had(kube, lab):
    kube.kubectl("create", "deployment", "ghost", "--image=registry.invalid/ghost:1")

    def tried() -> bool:
        container = kube.list("pods", "app=ghost")[0]["status"]["containerStatuses"][0]
        return container["state"]["waiting"]["reason"] in ("ErrImagePull", "ImagePullBackOff")

    kube.wait(tried)
    with pytest.raises(
        WaitTimeout, match=r"(?s)deployment/ghost: has 0 of 1 pods available after 2 s\..*pod ghost-.*(ErrImagePull|ImagePullBackOff)"
    ) as e:
        lab.wait_for("deployment/ghost", timeout=2)
    assert "kubectl describe deployment ghost" in str(e.value)


def test_pod_that_fits_nowhere(kube, lab):
    kube.apply({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nowhere"},
        "spec": {"nodeSelector": {"disk": "none"}, "containers": [{"name": "c", "image": "nginx:1.29-alpine"}]},
    })  # fmt: skip
    kube.wait("condition=PodScheduled=False", "pod/nowhere")
    with pytest.raises(WaitTimeout, match=r"Unschedulable: 0/3 nodes are available"):
        lab.wait_for("pod/nowhere", timeout=2)


def test_container_that_ends_at_once(kube, lab):
    never = {"exec": {"command": ["false"]}}
    container = {"name": "c", "image": "nginx:1.29-alpine", "command": ["sh", "-c", "exit 7"], "readinessProbe": never}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "short"}, "spec": {"containers": [container]}})
    kube.wait(lambda: kube.get("pod", "short")["status"]["containerStatuses"][0]["restartCount"])  # from now on it has ended before
    with pytest.raises(WaitTimeout, match=r"container c ended with exit code 7 \(Error\)"):
        lab.wait_for("pod/short", timeout=2)


def test_service_whose_selector_matches_nothing(web, kube, lab):
    kube.kubectl("create", "service", "clusterip", "typo", "--tcp=80:80")
    with pytest.raises(WaitTimeout, match=r"(?s)service/typo: has no ready endpoint after 2 s.*no pod has the labels app=typo"):
        lab.wait_for("service/typo", timeout=2)


def test_service_whose_target_port_is_named_by_nobody(web, kube, lab):
    kube.apply({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "wrongport"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "https"}]},
    })  # fmt: skip
    with pytest.raises(WaitTimeout, match=r"no container names a port 'https'"):
        lab.wait_for("service/wrongport", timeout=2)


def test_something_that_is_not_there(lab):
    with pytest.raises(WaitTimeout, match=r"(?s)pod/nobody: is not there yet after 1 s.*there is no pod 'nobody' in namespace"):
        lab.wait_for("pod/nobody", timeout=1)


def test_a_change_wakes_the_wait(kube, lab):
    import threading
    import time

    timer = threading.Timer(1.0, lambda: kube.kubectl("create", "configmap", "late"))
    timer.start()
    before = time.monotonic()
    lab.wait_for("configmap/late", timeout=120)
    assert time.monotonic() - before < 60
    timer.join()


def test_gone(kube, lab, capsys):
    kube.kubectl("create", "configmap", "passing")
    with pytest.raises(WaitTimeout, match="is still there"):
        lab.wait_for("configmap/passing", gone=True, timeout=1)
    kube.kubectl("delete", "configmap", "passing")
    lab.wait_for("configmap/passing", gone=True)
    assert capsys.readouterr().out == "✓ configmap/passing is gone\n"


def test_callables(lab, capsys):
    looks = []

    def third_time():
        """the third look"""
        looks.append(1)
        if len(looks) < 3:
            raise NotYet(f"look {len(looks)} of 3")
        return "here"

    assert lab.wait_for(third_time, timeout=10) == "here"
    assert capsys.readouterr().out == ""

    def never():
        raise NotYet("the moon is not full")

    with pytest.raises(WaitTimeout, match="never: the moon is not full after 1 s"):
        lab.wait_for(never, timeout=1)


def test_an_error_in_a_callable_is_not_swallowed(lab):
    with pytest.raises(ZeroDivisionError):
        lab.wait_for(lambda: 1 / 0, timeout=5)


@pytest.mark.parametrize("what", ["web", "deployment/", "", "/web"])
def test_what_can_not_be_awaited(lab, what):
    with pytest.raises(LabError, match=r"say kind/name"):
        lab.wait_for(what, timeout=1)


def test_unknown_kind(lab):
    with pytest.raises(LabError, match='doesn\'t have a resource type "gadget"'):
        lab.wait_for("gadget/web", timeout=1)


def test_a_pod_that_is_never_ready_does_not_hold_its_service(kube, lab, capsys):
    container = {"name": "c", "image": "nginx:1.29-alpine"}
    never = {"readinessProbe": {"exec": {"command": ["false"]}}}
    for name, extra in (("good", {}), ("bad", never)):
        meta = {"name": name, "labels": {"app": "half"}}
        kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container | extra]}})
    kube.kubectl("create", "service", "clusterip", "half", "--tcp=80:80")
    lab.wait_for("service/half")
    assert capsys.readouterr().out == "✓ service/half has 1 ready endpoint\n"


@pytest.mark.parametrize("kind", ["pod", "service"])
def test_what_is_ready_listens(kube, lab, monkeypatch, kind):
    """Without a probe a pod is Ready when its program was started; what follows a wait may connect at once all the same."""
    monkeypatch.setattr(conditions, "SETTLE", 60.0)
    name = f"listens-{kind}"
    slow = ["sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done; exec nginx -g 'daemon off;'"]
    container = {"name": "c", "image": "nginx:1.29-alpine", "command": slow, "ports": [{"containerPort": 80}]}
    meta = {"name": name, "labels": {"app": name}}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}})
    kube.kubectl("create", "service", "clusterip", name, "--tcp=80:80")
    kube.wait("condition=Ready", f"pod/{name}")
    address = lab.pod(name).ip
    look = conditions.condition(lab, kube.name, f"{kind}/{name}")
    kube.wait(lambda: f"but nobody listens at {address}:80 yet" in look().words)
    kube.exec(name, "touch", "/tmp/go")
    kube.wait(lambda: look().done)
    service = lab.service(name).ip if kind == "service" else address
    assert lab.nodes[0].run(f"curl -s -o /dev/null -w '%{{http_code}}' http://{service}") == "200"
    requests = kube.wait(lambda: [line for line in lab.pod(name).logs().splitlines() if "HTTP/1.1" in line or " 400 " in line])
    assert len(requests) == 1, "a wait's own looks are in no log"


def test_a_port_that_nobody_serves_does_not_hold_a_wait(kube, lab, capsys):
    container = {"name": "c", "image": "nginx:1.29-alpine", "ports": [{"containerPort": 8080}]}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "deaf"}, "spec": {"containers": [container]}})
    lab.wait_for("pod/deaf", timeout=60)
    assert capsys.readouterr().out == "✓ pod/deaf is ready\n"
