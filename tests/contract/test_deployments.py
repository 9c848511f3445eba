"""Deployments and ReplicaSets: rollouts, their history, what their status says. The same on pocket and on kind."""

from __future__ import annotations

import json
import re
import time

import pytest
from workloads import HELD, HELD_FOR, deployment, let_go

from harness import WAIT

HASH = re.compile(r"[bcdf456789]{6,10}")


def events(kube, name: str) -> list[str]:
    """The messages about an object, oldest first."""
    found = [event for event in kube.list("events") if event["involvedObject"]["name"] == name]
    return [event["message"] for event in sorted(found, key=lambda event: event["metadata"]["resourceVersion"].zfill(12))]


def replica_sets(kube, name: str) -> dict[str, dict]:
    """The ReplicaSets of a Deployment by revision."""
    return {rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: rs for rs in kube.list("replicasets", f"app={name}")}


def conditions(obj: dict) -> dict[str, tuple[str, str, str]]:
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in obj["status"]["conditions"]}


def test_a_deployment_makes_a_replica_set_and_pods_that_bear_its_hash(kube):
    kube.apply(deployment("plain"))
    kube.rollout("plain")
    made = kube.get("deployment", "plain")
    assert made["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    rs = replica_sets(kube, "plain")["1"]
    suffix = rs["metadata"]["labels"]["pod-template-hash"]
    assert HASH.fullmatch(suffix)
    assert rs["metadata"]["name"] == f"plain-{suffix}"
    assert rs["spec"]["selector"]["matchLabels"] == {"app": "plain", "pod-template-hash": suffix}
    assert rs["metadata"]["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3",
        "deployment.kubernetes.io/revision": "1",
    }
    for pod in kube.list("pods", "app=plain"):
        assert re.fullmatch(rf"plain-{suffix}-[a-z0-9]{{5}}", pod["metadata"]["name"])
        (owner,) = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"], owner["blockOwnerDeletion"]) == (
            "ReplicaSet",
            f"plain-{suffix}",
            True,
            True,
        )
    status = {name: value for name, value in made["status"].items() if name not in {"conditions", "terminatingReplicas"}}
    assert status == {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    assert conditions(made) == {
        "Available": ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        "Progressing": ("True", "NewReplicaSetAvailable", f'ReplicaSet "plain-{suffix}" has successfully progressed.'),
    }
    # controllers send their events on the side
    kube.wait(lambda: events(kube, "plain") == [f"Scaled up replica set plain-{suffix} from 0 to 2"])
    kube.wait(lambda: len(events(kube, f"plain-{suffix}")) == 2)


def test_a_rolling_update_never_goes_below_what_must_be_available(kube):
    kube.apply(deployment("rolling", 3))
    kube.rollout("rolling")
    kube.kubectl("set", "env", "deployment/rolling", "ROUND=2")
    lowest, highest = 3, 3
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        status = kube.get("deployment", "rolling")["status"]
        lowest = min(lowest, status.get("availableReplicas", 0))
        # What the ReplicaSets shall have. What they say that they have follows, each at its own time: the sum may exceed the limit.
        highest = max(highest, sum(rs["spec"]["replicas"] for rs in kube.list("replicasets", "app=rolling")))
        if status["observedGeneration"] == 2 and status.get("updatedReplicas") == status["replicas"] == 3 == status.get(
            "availableReplicas"
        ):
            break
    else:
        pytest.fail(f"not rolled out: {status}")
    assert lowest >= 3  # 25 % of 3, rounded down, may be unavailable
    assert highest <= 4  # 25 % of 3, rounded up, may be there in addition
    old, new = replica_sets(kube, "rolling")["1"], replica_sets(kube, "rolling")["2"]
    assert (old["spec"]["replicas"], new["spec"]["replicas"]) == (0, 3)
    expected = [
        f"Scaled up replica set {old['metadata']['name']} from 0 to 3",
        f"Scaled up replica set {new['metadata']['name']} from 0 to 1",
        f"Scaled down replica set {old['metadata']['name']} from 3 to 2",
        f"Scaled up replica set {new['metadata']['name']} from 1 to 2",
        f"Scaled down replica set {old['metadata']['name']} from 2 to 1",
        f"Scaled up replica set {new['metadata']['name']} from 2 to 3",
        f"Scaled down replica set {old['metadata']['name']} from 1 to 0",
    ]
    kube.wait(lambda: events(kube, "rolling") == expected)


def test_undo_goes_back_to_the_first_template_as_a_new_revision(kube):
    kube.apply(deployment("history", 1))
    kube.rollout("history")
    first = replica_sets(kube, "history")["1"]["metadata"]["name"]
    kube.kubectl("set", "env", "deployment/history", "ROUND=2")
    kube.rollout("history")
    assert kube.kubectl("rollout", "undo", "deployment/history").stdout == "deployment.apps/history rolled back\n"
    kube.rollout("history")
    revisions = replica_sets(kube, "history")
    assert revisions["3"]["metadata"]["name"] == first
    assert revisions["3"]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
    assert sorted(revisions) == ["2", "3"]
    shown = kube.kubectl("rollout", "history", "deployment/history").stdout
    assert shown == "deployment.apps/history \nREVISION  CHANGE-CAUSE\n2         <none>\n3         <none>\n\n"


def test_only_so_many_old_versions_are_kept(kube):
    kube.apply(deployment("limited", 1, spec={"revisionHistoryLimit": 1}))
    kube.rollout("limited")  # else the controller may see no template before the first change, and it becomes revision 1
    for number in range(3):
        kube.kubectl("set", "env", "deployment/limited", f"ROUND={number}")
        kube.rollout("limited")
    kube.wait(lambda: sorted(replica_sets(kube, "limited")) == ["3", "4"])


def test_a_paused_deployment_waits_and_scales(kube):
    kube.apply(deployment("paused", 1))
    kube.rollout("paused")
    kube.kubectl("rollout", "pause", "deployment/paused")
    kube.kubectl("set", "env", "deployment/paused", "ROUND=2")
    kube.kubectl("scale", "deployment/paused", "--replicas=2")
    kube.wait(lambda: kube.get("deployment", "paused")["status"].get("availableReplicas") == 2)
    assert sorted(replica_sets(kube, "paused")) == ["1"]
    paused = ("Unknown", "DeploymentPaused", "Deployment is paused")
    assert conditions(kube.get("deployment", "paused"))["Progressing"] == paused
    kube.kubectl("rollout", "resume", "deployment/paused")
    kube.rollout("paused")
    assert replica_sets(kube, "paused")["2"]["spec"]["replicas"] == 2


def test_recreate_makes_new_pods_only_after_the_old_ones_are_gone(kube):
    kube.apply(deployment("again", 2, spec={"strategy": {"type": "Recreate"}}))
    kube.rollout("again")
    before = {pod["metadata"]["uid"] for pod in kube.list("pods", "app=again")}
    kube.kubectl("set", "env", "deployment/again", "ROUND=2")
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        # pods that have ended are there until their kubelet deletes them; the controller waits for those that run
        left = [pod for pod in kube.list("pods", "app=again") if pod["status"]["phase"] not in {"Succeeded", "Failed"}]
        now = {pod["metadata"]["uid"] for pod in left}
        assert now <= before or now.isdisjoint(before), "old and new pods at the same time"
        if len(now - before) == 2:
            break
    else:
        pytest.fail("the new pods did not come")
    kube.rollout("again")


def test_a_rollout_that_gets_nowhere_is_reported_and_leaves_the_old_pods_alone(kube):
    kube.apply(deployment("stuck", 2))
    kube.rollout("stuck")
    # Only now the deadline: on a busy machine the first pods take longer than that.
    template = {"spec": {"containers": [{"name": "nginx", "image": "nowhere.invalid/x:y"}]}}
    kube.kubectl("patch", "deployment", "stuck", "-p", json.dumps({"spec": {"progressDeadlineSeconds": 8, "template": template}}))
    done = kube.kubectl("rollout", "status", "deployment/stuck", f"--timeout={WAIT:g}s", check=False, timeout=WAIT + 20)
    assert done.returncode == 1
    assert done.stderr == 'error: deployment "stuck" exceeded its progress deadline\n'
    found = kube.get("deployment", "stuck")
    new = replica_sets(kube, "stuck")["2"]["metadata"]["name"]
    expected = ("False", "ProgressDeadlineExceeded", f'ReplicaSet "{new}" has timed out progressing.')
    assert conditions(found)["Progressing"] == expected
    assert (found["status"]["availableReplicas"], found["status"]["unavailableReplicas"]) == (2, 1)


def owner_of(kube, pod: str) -> str:
    """The name of a pod's owner; empty when it has none, or is gone."""
    found = [each for each in kube.list("pods") if each["metadata"]["name"] == pod]
    return next((owner["name"] for each in found for owner in each["metadata"].get("ownerReferences") or ()), "")


def test_a_relabelled_pod_is_released_and_replaced_and_taken_back(kube):
    kube.apply(deployment("adopt", 2))
    kube.rollout("adopt")
    rs = replica_sets(kube, "adopt")["1"]["metadata"]["name"]
    name = kube.list("pods", "app=adopt")[0]["metadata"]["name"]
    kube.kubectl("label", "pod", name, "app=stray", "--overwrite")
    kube.wait(lambda: "ownerReferences" not in kube.get("pod", name)["metadata"])
    kube.wait(lambda: len(kube.list("pods", "app=adopt")) == 2)
    kube.kubectl("label", "pod", name, "app=adopt", "--overwrite")
    kube.wait(lambda: f"Deleted pod: {name}" in events(kube, rs) or owner_of(kube, name) == rs)
    kube.wait(lambda: len([pod for pod in kube.list("pods", "app=adopt") if "deletionTimestamp" not in pod["metadata"]]) == 2)


def test_a_deleted_pod_is_replaced_at_once_while_it_still_terminates(kube):
    kube.apply(deployment("heal", 1, pod={"terminationGracePeriodSeconds": HELD_FOR}, lifecycle=HELD))
    kube.rollout("heal")
    name = kube.list("pods", "app=heal")[0]["metadata"]["name"]
    kube.kubectl("delete", "pod", name, "--wait=false")
    kube.wait(lambda: len(kube.list("pods", "app=heal")) == 2, timeout=HELD_FOR / 2)
    assert kube.get("pod", name)["metadata"]["deletionGracePeriodSeconds"] == HELD_FOR
    kube.rollout("heal")
    let_go(kube, *(pod["metadata"]["name"] for pod in kube.list("pods", "app=heal")))


def test_scaling_prefers_to_delete_pods_that_do_not_run(kube):
    ports = [{"containerPort": 80, "hostPort": 28081}]  # only one on each worker
    kube.apply(deployment("shrink", 2, ports=ports))
    kube.rollout("shrink")
    running = {pod["metadata"]["name"] for pod in kube.list("pods", "app=shrink")}
    kube.kubectl("scale", "deployment/shrink", "--replicas=4")
    kube.wait(lambda: len(kube.list("pods", "app=shrink")) == 4)
    kube.kubectl("scale", "deployment/shrink", "--replicas=2")
    kube.wait(lambda: {pod["metadata"]["name"] for pod in kube.list("pods", "app=shrink")} == running)


def test_pods_that_cannot_be_made_are_reported(kube):
    kube.apply(deployment("refused", 1, pod={"serviceAccountName": "nobody"}))

    def failure() -> bool:
        found = kube.get("deployment", "refused")
        assert "ReplicaFailure" in conditions(found), found["status"]
        status, reason, message = conditions(found)["ReplicaFailure"]
        assert (status, reason) == ("True", "FailedCreate")
        assert "error looking up service account" in message
        return True

    kube.wait(failure)
    rs = replica_sets(kube, "refused")["1"]["metadata"]["name"]
    kube.wait(lambda: any(message.startswith("Error creating: pods") for message in events(kube, rs)))
