"""Pods: what runs, how it ends, and what the status and the events say. The same on pocket and kind."""

from __future__ import annotations

import json
import secrets

import pytest

from harness import WAIT, Kube

NGINX = "nginx:1.29-alpine"
CURL = "curlimages/curl:8.16.0"


def pod(name: str, *containers: dict, **spec) -> dict:
    """A Pod whose containers are nginx unless they say otherwise."""
    made = [{"name": f"c{n}" if n else "c", "image": NGINX, **c} for n, c in enumerate(containers)]
    labels = spec.pop("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": made, **spec},
    }


def sh(script: str, **more) -> dict:
    """A container that runs a shell script."""
    return {"command": ["sh", "-c", script], **more}


def unique(stem: str) -> str:
    return f"{stem}-{secrets.token_hex(3)}"


def container(kube: Kube, name: str, which: int = 0, key: str = "containerStatuses") -> dict:
    statuses = kube.get("pod", name)["status"].get(key) or []
    assert len(statuses) > which, f"{name} has no status of container {which} yet"
    return statuses[which]


def reason(kube: Kube, name: str) -> str:
    """What kubectl get pods shows as STATUS while a container waits or has ended."""
    statuses = kube.get("pod", name)["status"].get("containerStatuses") or []
    for status in statuses:
        for state in ("waiting", "terminated"):
            if state in status["state"]:
                return status["state"][state]["reason"]
    return ""


def events(kube: Kube, name: str) -> list[tuple[str, str]]:
    return [(e["reason"], e["message"]) for e in kube.list("events") if e["involvedObject"]["name"] == name]


def test_a_running_pod(kube: Kube):
    name = unique("run")
    kube.apply(pod(name, {}))
    kube.wait("condition=Ready", f"pod/{name}")
    made = kube.get("pod", name)
    status = made["status"]
    assert status["phase"] == "Running" and status["podIP"] == status["podIPs"][0]["ip"] and status["qosClass"] == "BestEffort"
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    one = status["containerStatuses"][0]
    assert one["ready"] and one["started"] and one["restartCount"] == 0 and one["lastState"] == {}
    assert one["image"] == "docker.io/library/nginx:1.29-alpine" and one["imageID"].startswith("sha256:")
    assert one["containerID"].startswith("containerd://") and list(one["state"]) == ["running"]
    kube.wait(lambda: {"Scheduled", "Created", "Started"} <= {r for r, _ in events(kube, name)})
    texts = dict(events(kube, name))
    assert texts["Created"] == "Created container: c" and texts["Started"] == "Started container c"
    assert texts["Scheduled"] == f"Successfully assigned {kube.name}/{name} to {made['spec']['nodeName']}"
    # without a probe Ready means that nginx was started, not that it listens
    kube.wait(lambda: "Welcome to nginx!" in kube.exec(name, "curl", "-s", "localhost"))


def test_a_stopped_pod_gets_its_time_and_its_events(kube: Kube):
    name = unique("stop")
    script = "trap 'echo caught; exit 0' TERM; echo set; while :; do sleep 0.1; done"
    kube.apply(pod(name, sh(script, image=CURL), terminationGracePeriodSeconds=30))
    kube.wait("condition=Ready", f"pod/{name}")
    follow = kube.popen("logs", "-f", name)
    assert follow.stdout.readline() == "set\n"  # the trap stands, and we listen
    kube.kubectl("delete", "pod", name)
    out, _ = follow.communicate(timeout=WAIT)
    assert "caught" in out
    kube.wait(lambda: ("Killing", "Stopping container c") in events(kube, name))


def test_a_deaf_process_is_killed_after_the_grace_period(kube: Kube):
    name = unique("deaf")
    kube.apply(pod(name, {"command": ["sleep", "1000"]}, terminationGracePeriodSeconds=1))
    kube.wait("condition=Ready", f"pod/{name}")
    kube.kubectl("delete", "pod", name)  # PID 1 without a handler ignores SIGTERM


@pytest.mark.parametrize(
    ("script", "phase", "state"),
    [
        ("true", "Succeeded", {"exitCode": 0, "reason": "Completed"}),
        ("exit 7", "Failed", {"exitCode": 7, "reason": "Error"}),
        # $$$$ is $$ once Kubernetes has expanded it; nobody can kill PID 1 from within, so a shell reports the signal, as shells do
        ("sh -c 'kill -9 $$$$'; exit $?", "Failed", {"exitCode": 137, "reason": "Error"}),
    ],
)
def test_restart_policy_never(kube: Kube, script: str, phase: str, state: dict):
    name = unique("never")
    kube.apply(pod(name, sh(script), restartPolicy="Never"))
    kube.wait(f"jsonpath={{.status.phase}}={phase}", f"pod/{name}")
    ended = container(kube, name)["state"]["terminated"]
    assert {k: ended[k] for k in state} == state
    conditions = {c["type"]: c for c in kube.get("pod", name)["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["reason"] == ("PodCompleted" if phase == "Succeeded" else "PodFailed")


def test_crash_loop_with_termination_message(kube: Kube):
    name = unique("crash")
    kube.apply(pod(name, sh("echo bye > /dev/termination-log; exit 3")))

    def in_back_off() -> dict:
        status = container(kube, name)  # one look: a moment later it may run again
        assert status["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff" and status["restartCount"] >= 1, status
        return status

    status = kube.wait(in_back_off)
    last = status["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "bye\n")
    uid = kube.get("pod", name)["metadata"]["uid"]
    pause = 10 * 2 ** (status["restartCount"] - 1)
    assert status["state"]["waiting"]["message"] == f"back-off {pause}s restarting failed container=c pod={name}_{kube.name}({uid})"
    assert kube.get("pod", name)["status"]["phase"] == "Running"
    text = f"Back-off restarting failed container c in pod {name}_{kube.name}({uid})"
    kube.wait(lambda: ("BackOff", text) in events(kube, name))


def test_on_failure_restarts_until_success(kube: Kube):
    name = unique("onfail")
    kube.apply(
        pod(
            name,
            sh("test -e /v/x && exit 0; touch /v/x; exit 1", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            restartPolicy="OnFailure",
            volumes=[{"name": "v", "emptyDir": {}}],
        )
    )
    kube.wait("jsonpath={.status.phase}=Succeeded", f"pod/{name}")
    assert container(kube, name)["restartCount"] == 1  # and the emptyDir outlived the container


def test_unknown_image(kube: Kube):
    name = unique("noimg")
    kube.apply(pod(name, {"image": "nosuch/image:1"}))

    def in_back_off() -> str:
        waiting = container(kube, name)["state"].get("waiting", {})  # one look: a moment later it may pull again
        assert waiting.get("reason") == "ImagePullBackOff"
        return waiting["message"]

    message = kube.wait(in_back_off, timeout=150)  # a registry that can't be reached fails slowly
    assert message.startswith('Back-off pulling image "nosuch/image:1": ErrImagePull: ') and 'docker.io/nosuch/image:1"' in message
    kube.wait(
        lambda: (
            {("Failed", "Error: ErrImagePull"), ("Failed", "Error: ImagePullBackOff"), ("Pulling", 'Pulling image "nosuch/image:1"')}
            <= set(events(kube, name))
        )
    )
    assert kube.get("pod", name)["status"]["phase"] == "Pending"
    refused = kube.kubectl("logs", name, check=False)
    assert refused.returncode == 1 and "is waiting to start: " in refused.stderr


def test_malformed_image_name(kube: Kube):
    name = unique("badname")
    kube.apply(pod(name, {"image": "Nginx"}))
    kube.wait(lambda: reason(kube, name) == "InvalidImageName")
    assert 'couldn\'t parse image name "Nginx"' in container(kube, name)["state"]["waiting"]["message"]


@pytest.mark.parametrize("tty", [False, True])
def test_missing_program(kube: Kube, tty: bool):
    name = unique("nocmd")
    kube.apply(pod(name, {"command": ["nosuch", "-x"], "tty": tty}))
    kube.wait(lambda: reason(kube, name) in ("RunContainerError", "CrashLoopBackOff"))
    last = kube.wait(lambda: container(kube, name)["lastState"]["terminated"])
    assert last["exitCode"] == 128 and last["reason"] == "StartError"
    assert 'exec: "nosuch": executable file not found in $PATH: unknown' in last["message"]


def test_init_containers_in_order(kube: Kube):
    name = unique("init")
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    made = pod(name, sh("cat /v/log; sleep 1000", **mount), volumes=[{"name": "v", "emptyDir": {}}])
    made["spec"]["initContainers"] = [
        {"name": "one", "image": NGINX, **sh("sleep 0.5; echo one >> /v/log", **mount)},
        {"name": "two", "image": NGINX, **sh("echo two >> /v/log", **mount)},
    ]
    kube.apply(made)
    kube.wait("condition=Ready", f"pod/{name}")
    kube.wait(lambda: kube.kubectl("logs", name, "-c", "c").stdout == "one\ntwo\n")
    assert [s["state"]["terminated"]["reason"] for s in kube.get("pod", name)["status"]["initContainerStatuses"]] == ["Completed"] * 2


def test_sidecar_runs_beside_the_others_and_ends_with_them(kube: Kube):
    name = unique("side")
    made = pod(name, sh("curl -s --retry 20 --retry-connrefused --retry-delay 1 localhost | head -1"), restartPolicy="Never")
    made["spec"]["initContainers"] = [{"name": "web", "image": NGINX, "restartPolicy": "Always"}]
    kube.apply(made)
    kube.wait("jsonpath={.status.phase}=Succeeded", f"pod/{name}")
    kube.wait(lambda: kube.kubectl("logs", name, "-c", "c").stdout == "<!DOCTYPE html>\n")


def test_containers_share_network_and_hostname_not_processes_or_files(kube: Kube):
    name = unique("two")
    kube.apply(pod(name, {}, {"image": CURL, "command": ["sleep", "1000"]}))
    kube.wait("condition=Ready", f"pod/{name}")
    assert "Welcome to nginx!" in kube.exec(name, "curl", "-s", "--retry", "9", "--retry-connrefused", "localhost", container="c1")
    assert kube.exec(name, "hostname", container="c1") == kube.exec(name, "hostname", container="c") == f"{name}\n"
    assert "nginx" not in kube.exec(name, "ps", container="c1").replace(name, "")
    assert kube.kubectl("exec", name, "-c", "c1", "--", "test", "-e", "/etc/nginx/conf.d/default.conf", check=False).returncode in (0, 1)
    kube.exec(name, "touch", "/only-here", container="c")
    assert kube.kubectl("exec", name, "-c", "c1", "--", "test", "-e", "/only-here", check=False).returncode == 1


def test_users(kube: Kube):
    name = unique("user")
    context = {"runAsUser": 1234, "runAsGroup": 2345}
    kube.apply(
        pod(
            name,
            {"image": CURL, "command": ["sleep", "1000"]},
            sh("sleep 1000", securityContext=context),
            securityContext={"fsGroup": 3456},
            volumes=[{"name": "v", "emptyDir": {}}],
        )
    )
    kube.wait("condition=Ready", f"pod/{name}")
    assert kube.exec(name, "id", "-un", container="c") == "curl_user\n"
    assert kube.exec(name, "sh", "-c", "echo $(id -u) $(id -g) $(id -G)", container="c1") == "1234 2345 2345 3456\n"
    denied = kube.kubectl("exec", name, "-c", "c1", "--", "touch", "/etc/x", check=False)
    assert denied.returncode == 1 and "Permission denied" in denied.stderr


def test_non_root_refused_for_a_root_image(kube: Kube):
    name = unique("nonroot")
    kube.apply(pod(name, {}, securityContext={"runAsNonRoot": True}))
    kube.wait(lambda: reason(kube, name) == "CreateContainerConfigError")
    assert container(kube, name)["state"]["waiting"]["message"].startswith("container has runAsNonRoot and image will run as root (pod: ")


def test_read_only_root(kube: Kube):
    name = unique("ro")
    kube.apply(
        pod(
            name,
            sh(
                "echo x > /x; echo $?; echo x > /v/x; echo $?",
                securityContext={"readOnlyRootFilesystem": True},
                volumeMounts=[{"name": "v", "mountPath": "/v"}],
            ),
            restartPolicy="Never",
            volumes=[{"name": "v", "emptyDir": {}}],
        )
    )
    kube.wait("jsonpath={.status.phase}=Succeeded", f"pod/{name}")
    kube.wait(lambda: [line for line in kube.kubectl("logs", name).stdout.splitlines() if line.isdigit()] == ["1", "0"])


def test_host_network(kube: Kube):
    name = unique("hostnet")
    kube.apply(pod(name, {"command": ["sleep", "1000"]}, hostNetwork=True))
    kube.wait("condition=Ready", f"pod/{name}")
    made = kube.get("pod", name)
    assert made["status"]["podIP"] == made["status"]["hostIP"]
    assert kube.exec(name, "hostname").strip() == made["spec"]["nodeName"]


def test_host_port_leads_from_the_node_to_the_pod(kube: Kube):
    name, port = unique("hostport"), 20000 + secrets.randbelow(9000)
    kube.apply(pod(name, {"ports": [{"containerPort": 80, "hostPort": port}]}))
    kube.wait("condition=Ready", f"pod/{name}")
    made = kube.get("pod", name)
    other = next(n for n in kube.nodes if n != made["spec"]["nodeName"])
    url = f"http://{made['status']['hostIP']}:{port}"
    fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
    kube.wait(lambda: "Welcome to nginx!" in kube.python_on_node(other, fetch, url))


def test_lifecycle_hooks(kube: Kube):
    name = unique("hooks")
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /v/x"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1"]}},
    }
    script = "trap 'exit 0' QUIT TERM; echo set; while :; do sleep 0.1; done"
    kube.apply(
        pod(
            name,
            sh(script, lifecycle=hooks, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            terminationGracePeriodSeconds=10,
            volumes=[{"name": "v", "emptyDir": {}}],
        )
    )
    kube.wait("condition=Ready", f"pod/{name}")
    assert kube.exec(name, "cat", "/v/x") == "started\n"
    follow = kube.popen("logs", "-f", name)
    assert follow.stdout.readline() == "set\n"  # the trap stands, and we listen
    kube.kubectl("delete", "pod", name)
    assert "stopping" in follow.communicate(timeout=WAIT)[0]


def test_deadline(kube: Kube):
    name = unique("deadline")
    kube.apply(pod(name, {"command": ["sleep", "1000"]}, activeDeadlineSeconds=1))
    kube.wait("jsonpath={.status.phase}=Failed", f"pod/{name}")
    status = kube.get("pod", name)["status"]
    assert status["reason"] == "DeadlineExceeded" and "longer than" in status["message"]


def test_describe_shows_it_all(kube: Kube):
    name = unique("describe")
    kube.apply(pod(name, {"ports": [{"containerPort": 80}]}))
    kube.wait("condition=Ready", f"pod/{name}")
    kube.wait(lambda: "Started container c" in kube.kubectl("describe", "pod", name).stdout)
    text = kube.kubectl("describe", "pod", name).stdout
    for words in (
        "Status:           Running",
        "Container ID:   containerd://",
        "Port:           80/TCP",
        "Ready:          True",
        "Restart Count:  0",
        "/var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-",
        "QoS Class:                   BestEffort",
    ):
        assert words in text, f"{words!r} is not in:\n{text}"
    assert json.loads(kube.kubectl("get", "pod", name, "-o", "json").stdout)["status"]["containerStatuses"][0]["volumeMounts"][0][
        "readOnly"
    ]
