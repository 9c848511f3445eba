"""What goes with its owner: garbage collection and namespace deletion. The same on pocket and on kind."""

from __future__ import annotations

import json

from workloads import HELD, HELD_FOR, deployment, let_go, pod, service


def names(kube, kind: str, selector: str) -> list[str]:
    return [each["metadata"]["name"] for each in kube.list(kind, selector)]


def gone(kube, app: str, *kinds: str) -> bool:
    left = {kind: names(kube, kind, f"app={app}") for kind in kinds}
    assert not any(left.values()), left
    return True


def test_background_deletion_takes_replica_sets_and_pods_along(kube):
    kube.apply(deployment("back"))
    kube.rollout("back")
    kube.kubectl("delete", "deployment", "back")
    kube.wait(lambda: gone(kube, "back", "replicasets", "pods"))


def test_foreground_deletion_takes_the_owner_last(kube):
    kube.apply(deployment("fore", pod={"terminationGracePeriodSeconds": HELD_FOR}, lifecycle=HELD))
    kube.rollout("fore")
    held = names(kube, "pods", "app=fore")
    kube.kubectl("delete", "deployment", "fore", "--cascade=foreground", "--wait=false")
    found = kube.get("deployment", "fore")
    assert found["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert found["metadata"]["deletionTimestamp"]
    let_go(kube, *held)
    kube.wait("delete", "deployment/fore")
    assert gone(kube, "fore", "replicasets", "pods")


def test_orphans_stay_and_can_be_adopted_again(kube):
    kube.apply(deployment("orphan", 1))
    kube.rollout("orphan")
    (rs,) = names(kube, "replicasets", "app=orphan")
    (running,) = names(kube, "pods", "app=orphan")
    kube.kubectl("delete", "deployment", "orphan", "--cascade=orphan")
    kube.wait(lambda: "ownerReferences" not in kube.get("replicaset", rs)["metadata"])
    assert names(kube, "pods", "app=orphan") == [running]
    kube.apply(deployment("orphan", 1))
    kube.rollout("orphan")
    assert kube.get("replicaset", rs)["metadata"]["ownerReferences"][0]["name"] == "orphan"
    assert names(kube, "pods", "app=orphan") == [running]


def test_a_service_takes_its_endpoints_along(kube):
    kube.apply(service("short", {"app": "nobody"}))
    kube.wait(lambda: kube.list("endpointslices", "kubernetes.io/service-name=short"))
    kube.wait(lambda: kube.kubectl("get", "endpoints", "short", check=False).returncode == 0)
    kube.kubectl("delete", "service", "short")
    kube.wait(lambda: not kube.list("endpointslices", "kubernetes.io/service-name=short"))
    kube.wait(lambda: kube.kubectl("get", "endpoints", "short", check=False).returncode == 1)


def config_map(name: str, *owners: dict) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": list(owners)}}


def reference(obj: dict) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": obj["metadata"]["name"], "uid": obj["metadata"]["uid"]}


def test_an_object_lives_as_long_as_one_of_its_owners(kube):
    kube.apply([config_map("owner-a"), config_map("owner-b")])
    a, b = kube.get("configmap", "owner-a"), kube.get("configmap", "owner-b")
    kube.apply(config_map("shared", reference(a), reference(b)))
    kube.kubectl("delete", "configmap", "owner-a")
    kube.wait(lambda: [each["name"] for each in kube.get("configmap", "shared")["metadata"]["ownerReferences"]] == ["owner-b"])
    kube.kubectl("delete", "configmap", "owner-b")
    kube.wait(lambda: kube.kubectl("get", "configmap", "shared", check=False).returncode == 1)


def test_an_owner_that_never_was_is_no_owner(kube):
    absent = {"apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": "00000000-0000-0000-0000-000000000000"}
    kube.create(config_map("fatherless", absent))
    kube.wait(lambda: kube.kubectl("get", "configmap", "fatherless", check=False).returncode == 1)


def test_a_finalizer_holds_an_object_until_it_is_removed(kube):
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    kube.apply(held)
    kube.kubectl("delete", "configmap", "held", "--wait=false")
    assert kube.get("configmap", "held")["metadata"]["deletionTimestamp"]
    kube.kubectl("patch", "configmap", "held", "--type=json", "-p", json.dumps([{"op": "remove", "path": "/metadata/finalizers"}]))
    kube.wait(lambda: kube.kubectl("get", "configmap", "held", check=False).returncode == 1)


def test_every_namespace_gets_its_standard_objects_and_gets_them_back(fresh):
    def present() -> bool:
        return "BEGIN CERTIFICATE" in fresh.get("configmap", "kube-root-ca.crt")["data"]["ca.crt"]

    fresh.wait(lambda: fresh.kubectl("get", "configmap", "kube-root-ca.crt", check=False).returncode == 0)
    assert present()
    fresh.kubectl("delete", "configmap", "kube-root-ca.crt")
    fresh.kubectl("delete", "serviceaccount", "default")
    fresh.wait(lambda: fresh.kubectl("get", "configmap/kube-root-ca.crt", "serviceaccount/default", check=False).returncode == 0)
    assert present()


def test_a_namespace_is_emptied_before_it_goes(fresh):
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    fresh.apply([deployment("inside"), service("inside", {"app": "inside"}), pod("alone"), held])
    fresh.rollout("inside")
    fresh.kubectl("delete", "namespace", fresh.name, "--wait=false")

    def remaining() -> dict:
        found = fresh.get("namespace", fresh.name)
        assert found["status"]["phase"] == "Terminating"
        conditions = {each["type"]: each for each in found["status"].get("conditions", [])}
        assert conditions, found["status"]
        assert conditions["NamespaceContentRemaining"]["message"] == "Some resources are remaining: configmaps. has 1 resource instances"
        return conditions

    conditions = fresh.wait(remaining)
    expected = "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    assert conditions["NamespaceFinalizersRemaining"]["message"] == expected
    refused = fresh.kubectl("create", "configmap", "late", check=False)
    assert refused.returncode == 1
    assert f"is forbidden: unable to create new content in namespace {fresh.name} because it is being terminated" in refused.stderr
    fresh.kubectl("patch", "configmap", "held", "--type=json", "-p", json.dumps([{"op": "remove", "path": "/metadata/finalizers"}]))
    fresh.wait(lambda: fresh.kubectl("get", "namespace", fresh.name, check=False).returncode == 1)
