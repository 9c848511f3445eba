"""Startup, liveness and readiness probes. The same on pocket and kind."""

from __future__ import annotations

from test_pods_run import CURL, container, events, pod, sh, unique

from harness import Kube

PATIENT = {"periodSeconds": 1, "timeoutSeconds": 20}  # a busy machine takes longer than the default second to run a command in a pod



def test_readiness_follows_the_probe(kube: Kube):
    name = unique("ready")
    kube.apply(
        pod(
            name,
            {
                "readinessProbe": {
                    "exec": {"command": ["sh", "-c", "echo no file; test -e /tmp/ok"]},
                    **PATIENT,
                    "failureThreshold": 1,
                }
            },
        )
    )
    kube.wait("jsonpath={.status.phase}=Running", f"pod/{name}")
    kube.wait(lambda: ("Unhealthy", "Readiness probe failed: no file\n") in events(kube, name))
    ready = next(c for c in kube.get("pod", name)["status"]["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "False" and ready["reason"] == "ContainersNotReady"
    assert ready["message"] == "containers with unready status: [c]"
    kube.exec(name, "touch", "/tmp/ok")
    kube.wait("condition=Ready", f"pod/{name}")
    kube.exec(name, "rm", "/tmp/ok")
    kube.wait("condition=Ready=false", f"pod/{name}")
    assert container(kube, name)["restartCount"] == 0


def test_http_probes_and_their_words(kube: Kube):
    name = unique("http")
    kube.apply(
        pod(
            name,
            {
                "ports": [{"name": "web", "containerPort": 80}],
                "readinessProbe": {"httpGet": {"path": "/nope", "port": "web"}, "periodSeconds": 1},
            },
            sh("sleep 1000", readinessProbe={"httpGet": {"path": "/", "port": 81}, "periodSeconds": 1}),
            sh("sleep 1000", readinessProbe={"tcpSocket": {"port": 80}, "periodSeconds": 1}),
        )
    )
    kube.wait("jsonpath={.status.phase}=Running", f"pod/{name}")
    address = kube.get("pod", name)["status"]["podIP"]
    refused = f'Readiness probe failed: Get "http://{address}:81/": dial tcp {address}:81: connect: connection refused'
    kube.wait(
        lambda: (
            {("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404"), ("Unhealthy", refused)}
            <= set(events(kube, name))
        )
    )
    kube.wait(lambda: [s["ready"] for s in kube.get("pod", name)["status"]["containerStatuses"]] == [False, False, True])
    kube.wait(lambda: "kube-probe/1.34" in kube.kubectl("logs", name, "-c", "c").stdout)


def test_liveness_restarts(kube: Kube):
    name = unique("live")
    kube.apply(
        pod(
            name,
            sh(
                "touch /tmp/ok; trap 'exit 0' TERM; while :; do sleep 0.1; done",
                image=CURL,
                livenessProbe={"exec": {"command": ["test", "-e", "/tmp/ok"]}, "failureThreshold": 2, **PATIENT},
            ),
        )
    )
    kube.wait("condition=Ready", f"pod/{name}")
    kube.exec(name, "rm", "/tmp/ok")
    kube.wait(lambda: container(kube, name)["restartCount"] == 1)
    kube.wait(lambda: ("Killing", "Container c failed liveness probe, will be restarted") in events(kube, name))
    kube.wait("condition=Ready", f"pod/{name}")


def test_startup_probe_holds_the_others_back(kube: Kube):
    name = unique("startup")
    kube.apply(
        pod(
            name,
            sh(
                "sleep 1000",
                startupProbe={"exec": {"command": ["sh", "-c", "echo not up; test -e /tmp/up"]}, "failureThreshold": 600, **PATIENT},
                livenessProbe={"exec": {"command": ["test", "-e", "/tmp/up"]}, "failureThreshold": 1, **PATIENT},
                readinessProbe={"exec": {"command": ["true"]}, **PATIENT},
            ),
        )
    )
    kube.wait(lambda: ("Unhealthy", "Startup probe failed: not up\n") in events(kube, name))
    first = container(kube, name)
    assert first["ready"] is False and first["started"] is False
    kube.exec(name, "touch", "/tmp/up")
    kube.wait("condition=Ready", f"pod/{name}")
    assert container(kube, name)["restartCount"] == 0 and container(kube, name)["started"]


def test_a_slow_command_fails_its_probe(kube: Kube):
    name = unique("slow")
    kube.apply(pod(name, {"readinessProbe": {"exec": {"command": ["sleep", "30"]}, "periodSeconds": 1, "timeoutSeconds": 1}}))
    (text, *_) = kube.wait(lambda: [text for what, text in events(kube, name) if what == "Unhealthy" and "timed out" in text])
    assert text.startswith("Readiness probe failed: command timed out: ")
