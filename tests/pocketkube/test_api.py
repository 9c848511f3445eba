"""The API without HTTP: what the cluster's own parts rely on."""

from __future__ import annotations

import asyncio

import pytest

from pocketkube.apiserver import patch, schema
from pocketkube.apiserver.api import Api, ApiError, Options
from pocketkube.apiserver.fields import DecodeError, decode, quantity
from pocketkube.store import Store


@pytest.fixture
def api() -> Api:
    made = Api(Store())
    made.bootstrap()
    return made


def pod(name="web", **spec):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "nginx"}], **spec}}


def service(name="web", **spec):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}


def test_bootstrap_twice_is_once(api):
    version = api.store.revision
    api.bootstrap()
    assert api.store.revision == version
    assert api.get("services", "default", "kubernetes")["spec"]["clusterIP"] == "10.96.0.1"


def test_results_are_copies(api):
    made = api.create("pods", pod())
    made["spec"]["containers"].clear()
    api.get("pods", "default", "web")["metadata"]["labels"] = {"a": "b"}
    api.list("pods")[0]["status"] = None
    kept = api.get("pods", "default", "web")
    assert kept["spec"]["containers"] and "labels" not in kept["metadata"] and kept["status"]["phase"] == "Pending"


def test_informer_replays_then_follows(api):
    async def run():
        api.create("pods", pod("before"))
        seen = []
        informer = api.informer("pods")
        informer.on_change(lambda kind, obj, old: seen.append((kind, obj["metadata"]["name"], old is not None)))
        assert seen == [], "never called from inside the call that registers it"
        api.create("pods", pod("after"))
        api.delete("pods", "default", "before")
        assert set(informer.items) == {("default", "after")}, "the cache is current at once"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return seen

    assert asyncio.run(run()) == [("ADDED", "before", False), ("ADDED", "after", False), ("DELETED", "before", True)]


def test_a_failing_listener_hides_nothing_from_others(api):
    async def run():
        seen, failures = [], []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        informer = api.informer("pods")
        informer.on_change(lambda *_: 1 / 0)
        informer.on_change(lambda kind, obj, old: seen.append(kind))
        api.create("pods", pod())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return seen, failures

    seen, failures = asyncio.run(run())
    assert seen == ["ADDED"] and isinstance(failures[0], ZeroDivisionError)


def test_life_of_a_pod(api):
    api.create("pods", pod())
    api.bind("default", "web", "servicelab-worker")
    with pytest.raises(ApiError) as caught:
        api.bind("default", "web", "servicelab-worker2")
    assert caught.value.reason == "Conflict"
    dying = api.delete("pods", "default", "web")
    assert dying["metadata"]["deletionGracePeriodSeconds"] == 30 and dying["metadata"]["generation"] == 2
    assert api.delete("pods", "default", "web", grace_seconds=5)["metadata"]["deletionGracePeriodSeconds"] == 5, "it may be shortened"
    assert api.delete("pods", "default", "web", grace_seconds=60)["metadata"]["deletionGracePeriodSeconds"] == 5, "but not extended"
    api.delete("pods", "default", "web", grace_seconds=0)
    with pytest.raises(ApiError) as caught:
        api.get("pods", "default", "web")
    assert (caught.value.code, caught.value.message) == (404, 'pods "web" not found')


def test_unscheduled_and_finished_pods_go_at_once(api):
    api.create("pods", pod("unscheduled"))
    api.delete("pods", "default", "unscheduled")
    api.create("pods", pod("finished", nodeName="servicelab-worker"))
    done = api.get("pods", "default", "finished")
    done["status"]["phase"] = "Succeeded"
    api.update("pods", done, subresource="status")
    api.delete("pods", "default", "finished")
    assert api.list("pods") == []


def test_finalizers_by_propagation(api):
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        api.create("services", service(policy.lower()))
        marked = api.delete("services", "default", policy.lower(), propagation=policy)
        assert marked["metadata"]["finalizers"] == [finalizer]
        marked["metadata"].pop("finalizers")
        api.update("services", marked)
        assert api.store.get("services", "default", policy.lower()) is None, "the last finalizer gone, so is the object"


def test_a_namespace_ends_when_finalized(api):
    api.create("namespaces", {"metadata": {"name": "ends"}})
    ending = api.delete("namespaces", None, "ends")
    assert ending["status"]["phase"] == "Terminating"
    with pytest.raises(ApiError) as caught:
        api.create("configmaps", {"metadata": {"name": "c", "namespace": "ends"}})
    assert caught.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    ending["spec"]["finalizers"] = []
    api.update("namespaces", ending, subresource="finalize")
    assert api.store.get("namespaces", None, "ends") is None


def test_status_and_spec_have_separate_doors(api):
    made = api.create("pods", pod())
    api.update("pods", {**made, "spec": {}, "metadata": {**made["metadata"], "labels": {"a": "b"}}, "status": {"phase": "Running"}},
               subresource="status")
    now = api.get("pods", "default", "web")
    assert now["status"]["phase"] == "Running" and now["spec"] == made["spec"] and "labels" not in now["metadata"]
    assert now["metadata"]["generation"] == 1


def test_cluster_ips_are_given_once_and_come_back():
    api = Api(Store(), service_cidr="10.96.0.0/28", node_port_range=(30000, 30001))
    api.bootstrap()
    for number in range(13):
        api.create("services", service(f"s{number}"))
    addresses = [one["spec"]["clusterIP"] for one in api.list("services")]
    assert len(set(addresses)) == 14
    with pytest.raises(ApiError, match="range is full"):
        api.create("services", service("one-too-many"))
    api.delete("services", "default", "s3")
    api.create("services", service("again"))


def test_node_ports_run_out_and_may_be_shared_by_protocols():
    api = Api(Store(), node_port_range=(30000, 30001))
    api.bootstrap()
    both = [{"port": 53, "protocol": "TCP", "name": "tcp"}, {"port": 53, "protocol": "UDP", "name": "udp"}]
    dns = api.create("services", service("dns", type="NodePort", ports=both))
    assert len({port["nodePort"] for port in dns["spec"]["ports"]}) == 1
    api.create("services", service("second", type="NodePort"))
    with pytest.raises(ApiError, match="range is full"):
        api.create("services", service("third", type="NodePort"))
    with pytest.raises(ApiError):
        api.get("services", "default", "third")


def test_a_refused_write_changes_nothing(api):
    api.create("services", service("web", type="NodePort"))
    version, before = api.store.revision, api.get("services", "default", "web")
    for change in ({"spec": {"ports": [{"port": 0}]}}, {"spec": {"clusterIP": "10.96.44.44"}}, {"spec": {"type": "Nope"}}):
        with pytest.raises(ApiError) as caught:
            api.patch("services", "default", "web", change, kind="merge")
        assert caught.value.code == 422
    api.patch("services", "default", "web", {"spec": {"sessionAffinity": "ClientIP"}}, options=Options(dry_run=True))
    assert (api.store.revision, api.get("services", "default", "web")) == (version, before)


def test_events_are_counted(api):
    made = api.create("pods", pod())
    for _ in range(3):
        api.record_event(made, "Warning", "BackOff", "Back-off restarting", "kubelet", "servicelab-worker", field_path="spec.containers{c}")
    api.record_event(made, "Normal", "Scheduled", "Successfully assigned", "default-scheduler")
    first, second = sorted(api.list("events"), key=lambda event: event["reason"])
    assert (first["count"], first["involvedObject"]["fieldPath"], first["source"]["host"]) == (3, "spec.containers{c}", "servicelab-worker")
    assert (second["source"], second["reportingComponent"], second["firstTimestamp"]) == ({}, "default-scheduler", None)


# --- strategic merge patches -----------------------------------------------------------------------------------------------------------

POD_SPEC = "io.k8s.api.core.v1.PodSpec"


def merged(original, change, kind=POD_SPEC):
    return patch.strategic(original, change, schema.structs()[kind])


@pytest.mark.parametrize(("original", "change", "result"), [
    ({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}, {"containers": [{"name": "b", "image": "3"}]},
     {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}),
    ({"containers": [{"name": "a"}]}, {"containers": [{"name": "b"}]}, {"containers": [{"name": "a"}, {"name": "b"}]}),
    ({"containers": [{"name": "a"}, {"name": "b"}]}, {"containers": [{"name": "a", "$patch": "delete"}]}, {"containers": [{"name": "b"}]}),
    ({"containers": [{"name": "a"}]}, {"containers": [{"name": "b"}, {"$patch": "replace"}]}, {"containers": [{"name": "b"}]}),
    ({"containers": [{"name": "a"}, {"name": "b"}]}, {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
     {"containers": [{"name": "b"}, {"name": "a"}]}),
    ({"containers": [{"name": "server"}, {"name": "a"}]},
     {"$setElementOrder/containers": [{"name": "a"}, {"name": "new"}], "containers": [{"name": "new"}]},
     {"containers": [{"name": "server"}, {"name": "a"}, {"name": "new"}]}),
    ({"containers": [{"name": "a", "args": ["x", "y"]}]}, {"containers": [{"name": "a", "args": ["z"]}]},
     {"containers": [{"name": "a", "args": ["z"]}]}),
    ({"volumes": [{"name": "v", "emptyDir": {}}]},
     {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]},
     {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
    ({"nodeSelector": {"a": "1", "b": "2"}}, {"nodeSelector": {"a": None, "c": "3"}}, {"nodeSelector": {"b": "2", "c": "3"}}),
    ({"securityContext": {"runAsUser": 1, "fsGroup": 2}}, {"securityContext": {"$patch": "replace", "runAsUser": 5}},
     {"securityContext": {"runAsUser": 5}}),
    ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
], ids=["by key", "new item", "delete item", "replace list", "order", "order with the server's own", "atomic list", "retain keys", "map",
        "replace object", "list without key"])
def test_strategic_merge(original, change, result):
    assert merged(original, change) == result


def test_strategic_merge_of_primitive_lists():
    meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    assert merged({"finalizers": ["a/a", "b/b"]}, {"finalizers": ["c/c"]}, meta) == {"finalizers": ["a/a", "b/b", "c/c"]}
    assert merged({"finalizers": ["a/a", "b/b"]}, {"$deleteFromPrimitiveList/finalizers": ["a/a"]}, meta) == {"finalizers": ["b/b"]}


def test_strategic_merge_needs_its_key():
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        merged({"containers": []}, {"containers": [{"image": "x"}]})
    with pytest.raises(ApiError, match="unknown patch type found: nonsense"):
        merged({}, {"$patch": "nonsense"})


# --- decoding --------------------------------------------------------------------------------------------------------------------------

def test_decoding_cleans_as_the_real_server_does():
    given = {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}, "env": [], "command": None}],
             "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {}}
    clean, strict = decode(schema.structs()[POD_SPEC], given)
    assert strict == []
    assert clean == {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}],
                     "volumes": [{"name": "v", "emptyDir": {}}]}


@pytest.mark.parametrize("text", ["", "x", "1.5.2", "1 Gi", "--1", "1Zi"])
def test_no_quantity(text):
    with pytest.raises(DecodeError):
        quantity(text)


def test_all_unknown_fields_are_named():
    _, strict = decode(schema.structs()[POD_SPEC], {"foo": 1, "containers": [{"name": "a"}, {"name": "b", "imagee": "x"}]})
    assert strict == ['unknown field "foo"', 'unknown field "containers[1].imagee"']
