"""kubectl logs. The same on pocket and kind."""

from __future__ import annotations

import re

import pytest
from test_pods_run import container, pod, sh, unique

from harness import Kube


@pytest.fixture(scope="module")
def lines(kube: Kube) -> str:
    """A pod that has written ten lines and goes on running."""
    script = "seq 1 10; until test -e /go; do sleep 0.1; done; echo err >&2; sleep 10000"
    kube.apply(pod("lines", sh(script), labels={"app": "lines"}))
    # the two streams are read side by side: err is written when the others are in the log
    kube.wait(lambda: "\n10\n" in kube.kubectl("logs", "lines", check=False).stdout)
    kube.exec("lines", "touch", "/go")
    kube.wait(lambda: "err" in kube.kubectl("logs", "lines", check=False).stdout)
    return "lines"


def test_all_tail_and_limit(kube: Kube, lines: str):
    everything = "".join(f"{n}\n" for n in range(1, 11)) + "err\n"
    assert kube.kubectl("logs", lines).stdout == everything
    assert kube.kubectl("logs", lines, "--tail=2").stdout == "10\nerr\n"
    assert kube.kubectl("logs", lines, "--tail=0").stdout == ""
    assert kube.kubectl("logs", lines, "--tail=-1").stdout == everything
    assert kube.kubectl("logs", lines, "--limit-bytes=5").stdout == "1\n2\n3"
    assert kube.kubectl("logs", lines, "--since=1h").stdout == everything


def test_timestamps_and_prefix(kube: Kube, lines: str):
    stamped = kube.kubectl("logs", lines, "--timestamps", "--tail=1").stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z err\n", stamped)
    since = kube.kubectl("logs", lines, "--since-time=2100-01-01T00:00:00Z").stdout
    assert since == ""
    prefixed = kube.kubectl("logs", "-l", "app=lines", "--prefix", "--tail=1").stdout
    assert prefixed == "[pod/lines/c] err\n"


def test_follow_ends_with_the_container(kube: Kube):
    name = unique("follow")
    kube.apply(pod(name, sh("for i in 1 2 3; do echo $i; sleep 0.3; done"), restartPolicy="Never"))
    kube.wait(lambda: kube.get("pod", name)["status"].get("containerStatuses", [{}])[0].get("state", {}).keys() & {"running", "terminated"})
    assert kube.kubectl("logs", "-f", name).stdout == "1\n2\n3\n"
    assert kube.kubectl("logs", name).stdout == "1\n2\n3\n"  # of a completed pod, too


def test_previous(kube: Kube):
    name = unique("previous")
    kube.apply(
        pod(
            name,
            sh(
                "if test -e /v/x; then echo second; sleep 1000; fi; touch /v/x; echo first; exit 1",
                volumeMounts=[{"name": "v", "mountPath": "/v"}],
            ),
            volumes=[{"name": "v", "emptyDir": {}}],
        )
    )
    kube.wait(lambda: container(kube, name)["restartCount"] == 1 and "running" in container(kube, name)["state"])
    kube.wait(lambda: kube.kubectl("logs", name).stdout == "second\n")
    assert kube.kubectl("logs", name, "--previous").stdout == "first\n"


def test_refusals(kube: Kube, lines: str):
    none = kube.kubectl("logs", lines, "-p", check=False)
    assert none.stderr == 'Error from server (BadRequest): previous terminated container "c" in pod "lines" not found\n'
    wrong = kube.kubectl("logs", lines, "-c", "nope", check=False)
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: container nope is not valid for pod lines")
    absent = kube.kubectl("logs", "nosuchpod", check=False)
    assert absent.returncode == 1 and 'pods "nosuchpod" not found' in absent.stderr


def test_nginx_logs_to_its_streams(kube: Kube):
    name = unique("nginx")
    kube.apply(pod(name, {}))
    kube.wait("condition=Ready", f"pod/{name}")
    kube.wait(lambda: "start worker process" in kube.kubectl("logs", name).stdout)
    kube.exec(name, "curl", "-s", "-A", "a-test", "localhost/some/path")
    kube.wait(lambda: '"GET /some/path HTTP/1.1" 404' in kube.kubectl("logs", name).stdout)
    assert re.search(
        r'^127\.0\.0\.1 - - \[.*\] "GET /some/path HTTP/1\.1" 404 \d+ "-" "a-test" "-"$', kube.kubectl("logs", name).stdout, re.M
    )
    assert "[notice] 1#1: nginx/" in kube.kubectl("logs", name).stdout
