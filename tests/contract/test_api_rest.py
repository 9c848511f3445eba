"""REST as clients other than kubectl use it: lists and pages, forms of answers, writes and their preconditions, deletion."""

from __future__ import annotations

import pytest
from rest import Rest

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture(scope="module")
def rest(kube) -> Rest:
    return Rest(kube.kubeconfig)


@pytest.fixture(scope="module")
def configmaps(kube) -> str:
    return f"/api/v1/namespaces/{kube.name}/configmaps"


def make(rest, where, name, **more):
    answer = rest.call("POST", where, {"metadata": {"name": name, **more.pop("metadata", {})}, **more})
    assert answer.status == 201, answer.body
    return answer.body


def test_pages_of_a_list(kube, rest, configmaps):
    for name in "abcde":
        make(rest, configmaps, f"page-{name}", metadata={"labels": {"pages": "yes"}})
    seen, token = [], ""
    while True:
        page = rest.call("GET", f"{configmaps}?limit=2&labelSelector=pages%3Dyes&continue={token}").body
        assert len(page["items"]) <= 2
        seen += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert seen == [f"page-{name}" for name in "abcde"]
    assert rest.call("GET", f"{configmaps}?continue=nonsense").status == 400


def test_remaining_items_are_counted_without_selectors(kube, rest, configmaps):
    # every namespace gets it from a controller, some time after its ServiceAccount: not between the two looks below
    kube.wait(lambda: rest.call("GET", f"{configmaps}/kube-root-ca.crt").status == 200)
    for name in "xyz":
        make(rest, configmaps, f"count-{name}")
    total = len(rest.call("GET", configmaps).body["items"])
    assert rest.call("GET", f"{configmaps}?limit=1").body["metadata"]["remainingItemCount"] == total - 1


def test_table_and_partial_metadata(rest, configmaps):
    make(rest, configmaps, "shaped", data={"a": "1", "b": "2"})
    table = rest.call("GET", f"{configmaps}/shaped", accept=TABLE).body
    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["rows"][0]["cells"][:2] == ["shaped", 2]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    full = rest.call("GET", f"{configmaps}/shaped?includeObject=Object", accept=TABLE).body
    assert full["rows"][0]["object"]["data"] == {"a": "1", "b": "2"}
    partial = rest.call("GET", f"{configmaps}/shaped", accept="application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").body
    assert partial["kind"] == "PartialObjectMetadata" and "data" not in partial
    assert rest.call("GET", configmaps, accept="image/png").status == 406


def test_update_needs_the_current_version(rest, configmaps):
    made = make(rest, configmaps, "versioned", data={"a": "1"})
    first = rest.call("PUT", f"{configmaps}/versioned", {**made, "data": {"a": "2"}})
    assert first.status == 200
    stale = rest.call("PUT", f"{configmaps}/versioned", {**made, "data": {"a": "3"}})
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version and try again" in stale.body["message"]
    same = rest.call("PUT", f"{configmaps}/versioned", first.body)
    assert same.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"], "nothing changed, so no new version"


def test_server_sets_and_guards_metadata(rest, configmaps):
    made = make(rest, configmaps, "guarded", metadata={"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7})
    assert made["metadata"]["uid"] != "mine" and not made["metadata"]["creationTimestamp"].startswith("2001")
    changed = rest.call("PATCH", f"{configmaps}/guarded", {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}},
                        content_type="application/merge-patch+json")
    assert changed.body["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    again = rest.call("POST", configmaps, {"metadata": {"name": "guarded"}})
    assert (again.status, again.body["reason"]) == (409, "AlreadyExists")
    other = rest.call("POST", configmaps, {"metadata": {"name": "x", "namespace": "elsewhere"}})
    assert other.status == 400 and "does not match the namespace sent on the request" in other.body["message"]


def test_generated_names(rest, configmaps):
    names = {rest.call("POST", configmaps, {"metadata": {"generateName": "gen-"}}).body["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3 and all(name.startswith("gen-") and len(name) == 9 for name in names)


def test_generation_counts_only_what_is_desired(kube, rest):
    where = f"/apis/apps/v1/namespaces/{kube.name}/deployments"
    labels = {"app": "generation"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx:1.29-alpine"}]}}
    made = rest.call("POST", where, {"metadata": {"name": "generation"}, "spec": {"replicas": 0, "selector": {"matchLabels": labels},
                                                                                "template": template}}).body
    assert made["metadata"]["generation"] == 1

    def patch(change):
        answer = rest.call("PATCH", f"{where}/generation", change, content_type="application/strategic-merge-patch+json")
        assert answer.status == 200, answer.body
        return answer.body["metadata"]["generation"]

    assert patch({"metadata": {"labels": {"a": "b"}}}) == 1
    assert patch({"spec": {"minReadySeconds": 1}}) == 2
    assert patch({"status": {"replicas": 5}}) == 2, "the status is not written through the object itself"
    assert rest.call("GET", f"{where}/generation").body["status"].get("replicas", 0) == 0
    scale = rest.call("GET", f"{where}/generation/scale").body
    assert (scale["kind"], scale["apiVersion"], scale["status"]["selector"]) == ("Scale", "autoscaling/v1", "app=generation")


def test_dry_run_keeps_nothing(rest, configmaps):
    answer = rest.call("POST", f"{configmaps}?dryRun=All", {"metadata": {"name": "dry"}})
    assert answer.status == 201 and answer.body["metadata"]["uid"]
    assert rest.call("GET", f"{configmaps}/dry").status == 404
    make(rest, configmaps, "wet")
    assert rest.call("DELETE", f"{configmaps}/wet?dryRun=All").status == 200
    assert rest.call("GET", f"{configmaps}/wet").status == 200
    assert rest.call("POST", f"{configmaps}?dryRun=Some", {"metadata": {"name": "dry"}}).status in (400, 422)


def test_unknown_fields_by_validation_mode(rest, configmaps):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fields"}, "dta": {"a": "b"}}
    strict = rest.call("POST", f"{configmaps}?fieldValidation=Strict&dryRun=All", body)
    assert strict.status == 400 and strict.body["message"].endswith('strict decoding error: unknown field "dta"')
    warned = rest.call("POST", f"{configmaps}?fieldValidation=Warn&dryRun=All", body)
    assert warned.status == 201 and warned.headers["Warning"] == '299 - "unknown field \\"dta\\""'
    ignored = rest.call("POST", f"{configmaps}?fieldValidation=Ignore&dryRun=All", body)
    assert ignored.status == 201 and ignored.headers["Warning"] is None


def test_duplicate_fields(rest, configmaps):
    twice = b'{"metadata": {"name": "twice"}, "data": {"a": "1", "a": "2"}}'
    strict = rest.call("POST", f"{configmaps}?fieldValidation=Strict&dryRun=All", twice)
    assert strict.status == 400 and 'duplicate field "data.a"' in strict.body["message"]
    assert rest.call("POST", f"{configmaps}?fieldValidation=Ignore&dryRun=All", twice).body["data"] == {"a": "2"}


def test_delete_preconditions_and_collections(rest, configmaps):
    made = make(rest, configmaps, "once", metadata={"labels": {"group": "gone"}})
    refused = rest.call("DELETE", f"{configmaps}/once", {"preconditions": {"uid": "another"}})
    assert (refused.status, refused.body["reason"]) == (409, "Conflict")
    done = rest.call("DELETE", f"{configmaps}/once", {"preconditions": {"uid": made["metadata"]["uid"]}}).body
    assert done["status"] == "Success" and done["details"]["uid"] == made["metadata"]["uid"]
    for name in ("two", "three"):
        make(rest, configmaps, name, metadata={"labels": {"group": "gone"}})
    rest.call("DELETE", f"{configmaps}?labelSelector=group%3Dgone")
    assert rest.call("GET", f"{configmaps}?labelSelector=group%3Dgone").body["items"] == []


def test_finalizers_keep_an_object(rest, configmaps):
    make(rest, configmaps, "kept", metadata={"finalizers": ["example.com/wait"]})
    marked = rest.call("DELETE", f"{configmaps}/kept").body
    assert marked["metadata"]["deletionTimestamp"] and marked["metadata"]["finalizers"] == ["example.com/wait"]
    assert rest.call("GET", f"{configmaps}/kept").status == 200
    free = rest.call("PATCH", f"{configmaps}/kept", {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")
    assert free.status == 200
    assert rest.call("GET", f"{configmaps}/kept").status == 404


def test_kinds_of_patch(rest, configmaps):
    make(rest, configmaps, "patched", data={"a": "1", "b": "2"})
    merge = rest.call("PATCH", f"{configmaps}/patched", {"data": {"a": None, "c": "3"}}, content_type="application/merge-patch+json")
    assert merge.body["data"] == {"b": "2", "c": "3"}
    ops = [{"op": "test", "path": "/data/b", "value": "2"}, {"op": "move", "from": "/data/b", "path": "/data/d"}]
    assert rest.call("PATCH", f"{configmaps}/patched", ops, content_type="application/json-patch+json").body["data"] == {"c": "3", "d": "2"}
    again = rest.call("PATCH", f"{configmaps}/patched", ops, content_type="application/json-patch+json")
    assert again.status == 422, "the test of a JSON patch fails, so nothing of it is done"
    applied = rest.call("PATCH", f"{configmaps}/patched?fieldManager=m&force=true",
                        b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: patched}\ndata: {e: '5'}\n",
                        content_type="application/apply-patch+yaml")
    assert applied.status == 200 and applied.body["data"] == {"c": "3", "d": "2", "e": "5"}
    assert rest.call("PATCH", f"{configmaps}/patched", {}, content_type="text/plain").status == 415


def test_what_is_not_there(kube, rest, configmaps):
    missing = rest.call("GET", f"{configmaps}/nope")
    assert (missing.status, missing.body["reason"], missing.body["message"]) == (404, "NotFound", 'configmaps "nope" not found')
    assert missing.body["details"] == {"name": "nope", "kind": "configmaps"}
    for path in ("/nope", f"/api/v1/namespaces/{kube.name}/widgets", "/apis/widgets.example.com/v1", "/api/v9"):
        assert rest.call("GET", path).status == 404, path
    assert rest.call("POST", f"/api/v1/namespaces/{kube.name}/configmaps/x", {}).status in (404, 405)


@pytest.mark.parametrize("body", [b"{", b"[]", b"nonsense", b'{"metadata": "text"}', b'{"metadata": {"name": 5}}', b"\xff\xfe"])
def test_malformed_bodies(rest, configmaps, body):
    answer = rest.call("POST", configmaps, body)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")


def test_wrong_token(kube):
    answer = Rest(kube.kubeconfig, token="wrong").call("GET", "/api/v1/namespaces") if kube.kind == "pocket" else None
    if answer is not None:
        assert (answer.status, answer.body["reason"], answer.body["message"]) == (401, "Unauthorized", "Unauthorized")
    told = kube.kubectl("get", "pods", "--token=wrong", "--client-certificate=", "--client-key=", check=False) \
        if kube.kind == "pocket" else None
    if told is not None:
        assert told.returncode == 1 and "You must be logged in to the server" in told.stderr


def test_health_and_version(rest):
    for path in ("/healthz", "/livez", "/readyz"):
        assert rest.call("GET", path).body == "ok"
    version = rest.call("GET", "/version").body
    assert version["gitVersion"].startswith("v1.34.") and version["minor"] == "34"


def test_large_objects(rest, configmaps):
    assert rest.call("POST", configmaps, {"metadata": {"name": "large"}, "data": {"a": "x" * 1_000_000}}).status == 201
    refused = rest.call("POST", configmaps, {"metadata": {"name": "larger"}, "data": {"a": "x" * 2_000_000}})
    assert refused.status == 422 and "Too long: may not be more than 1048576 bytes" in refused.body["message"]
    # over the limit of 3 MiB by less than 256 KiB, which the server still reads: what has more, it may cut off before its answer is read
    assert rest.call("POST", configmaps, {"metadata": {"name": "largest"}, "data": {"a": "x" * 3_200_000}}).status == 413
