"""kubectl's ways of making, changing and showing objects: what it prints, on pocket and kind alike."""

from __future__ import annotations

import json
import re

import pytest
import yaml

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: nginx
        image: nginx:1.29-alpine
        ports: [{{containerPort: {port}}}]
"""


def manifest(name, replicas=0, port=80):
    return MANIFEST.format(name=name, replicas=replicas, port=port)


def out(kube, *args, **options):
    return kube.kubectl(*args, **options).stdout


def ports(kube, deployment):
    return kube.get("deployment", deployment)["spec"]["template"]["spec"]["containers"][0]["ports"]


def test_apply(kube):
    assert kube.apply(manifest("applied")) == "deployment.apps/applied created\n"
    assert kube.apply(manifest("applied")) == "deployment.apps/applied unchanged\n"
    assert kube.apply(manifest("applied", port=81)) == "deployment.apps/applied configured\n"
    differs = kube.kubectl("diff", "-f", "-", input=manifest("applied", port=82), check=False)
    assert differs.returncode == 1
    assert re.search(r"^-\s+- containerPort: 81\n\+\s+- containerPort: 82$", differs.stdout, re.M)
    assert ports(kube, "applied") == [{"containerPort": 81, "protocol": "TCP"}]
    without = manifest("applied", port=81).replace("  replicas: 0\n", "")
    kube.kubectl("scale", "deployment/applied", "--replicas=0")
    kube.apply(without)
    assert kube.get("deployment", "applied")["spec"]["replicas"] == 1, "what apply set and no longer sets gets its default again"
    kube.kubectl("delete", "deployment", "applied")


def test_deployment_as_yaml(kube):
    kube.kubectl("create", "deployment", "shown", "--image=nginx:1.29-alpine", "--port=80", "--replicas=0")
    shown = yaml.safe_load(out(kube, "get", "deployment", "shown", "-o", "yaml"))
    assert shown["spec"] == {
        "progressDeadlineSeconds": 600, "replicas": 0, "revisionHistoryLimit": 10, "selector": {"matchLabels": {"app": "shown"}},
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}, "type": "RollingUpdate"},
        "template": {"metadata": {"labels": {"app": "shown"}}, "spec": {
            "containers": [{
                "image": "nginx:1.29-alpine", "imagePullPolicy": "IfNotPresent", "name": "nginx",
                "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30}},
    }
    assert set(shown["metadata"]) <= {"annotations", "creationTimestamp", "generation", "labels", "name", "namespace", "resourceVersion",
                                      "uid"}


def test_pod_defaults(kube):
    answer = out(kube, "run", "defaults", "--image=nginx", "--env=A=b", "--dry-run=server", "-o", "json")
    spec = json.loads(answer)["spec"]
    access = spec["volumes"][0]["name"]
    assert re.fullmatch(r"kube-api-access-[a-z0-9]{5}", access)
    assert spec["containers"][0] == {
        "env": [{"name": "A", "value": "b"}], "image": "nginx", "imagePullPolicy": "Always", "name": "defaults", "resources": {},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "volumeMounts": [{"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": access, "readOnly": True}]}
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    assert (spec["enableServiceLinks"], spec["priority"], spec["serviceAccountName"]) == (True, 0, "default")


def test_services(kube):
    kube.kubectl("create", "deployment", "exposed", "--image=nginx:1.29-alpine", "--replicas=0")
    assert out(kube, "expose", "deployment", "exposed", "--port=80", "--type=NodePort") == "service/exposed exposed\n"
    spec = kube.get("service", "exposed")["spec"]
    ip, port = spec.pop("clusterIP"), spec["ports"][0].pop("nodePort")
    assert ip.startswith("10.96.") and 30000 <= port <= 32767
    assert spec == {
        "clusterIPs": [ip], "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"app": "exposed"},
        "sessionAffinity": "None", "type": "NodePort"}
    assert out(kube, "get", "service", "exposed", "--no-headers", "-o", "wide").split()[:5] == [
        "exposed", "NodePort", ip, "<none>", f"80:{port}/TCP"]
    kube.kubectl("create", "service", "externalname", "outside", "--external-name=example.com")
    kube.kubectl("create", "service", "clusterip", "headless", "--clusterip=None")
    kube.kubectl("create", "service", "loadbalancer", "balanced", "--tcp=80:8080")
    rows = {line.split()[0]: line.split()[1:4] for line in out(kube, "get", "services", "--no-headers").splitlines()}
    assert rows["outside"] == ["ExternalName", "<none>", "example.com"]
    assert rows["headless"] == ["ClusterIP", "None", "<none>"]
    assert rows["balanced"][0] == "LoadBalancer" and rows["balanced"][2] == "<pending>"
    kube.kubectl("patch", "service", "exposed", "-p", '{"spec":{"type":"ClusterIP"}}')
    now = kube.get("service", "exposed")["spec"]
    assert now["clusterIP"] == ip and "nodePort" not in now["ports"][0] and "externalTrafficPolicy" not in now


def test_describe_service(kube):
    kube.kubectl("create", "service", "nodeport", "described", "--tcp=80:http", "--node-port=0")
    lines = [re.sub(r"\s+", " ", line) for line in out(kube, "describe", "service", "described").splitlines()]
    spec = kube.get("service", "described")["spec"]
    assert lines == [
        "Name: described", f"Namespace: {kube.name}", "Labels: app=described", "Annotations: <none>", "Selector: app=described",
        "Type: NodePort", "IP Family Policy: SingleStack", "IP Families: IPv4", f"IP: {spec['clusterIP']}", f"IPs: {spec['clusterIP']}",
        "Port: 80-http 80/TCP", "TargetPort: http/TCP", f"NodePort: 80-http {spec['ports'][0]['nodePort']}/TCP", lines[13],
        "Session Affinity: None", "External Traffic Policy: Cluster", "Internal Traffic Policy: Cluster", "Events: <none>"]
    assert lines[13].strip() in ("Endpoints:", "Endpoints: <none>")


def test_secrets_and_configmaps(kube, tmp_path):
    (tmp_path / "page.html").write_text("hello\n")
    assert out(kube, "create", "configmap", "files", f"--from-file={tmp_path}", "--from-literal=a=b") == "configmap/files created\n"
    assert kube.get("configmap", "files")["data"] == {"a": "b", "page.html": "hello\n"}
    assert out(kube, "create", "secret", "generic", "keys", "--from-literal=user=me") == "secret/keys created\n"
    assert kube.get("secret", "keys")["data"] == {"user": "bWU="}
    assert out(kube, "get", "secret", "keys", "--no-headers").split()[:3] == ["keys", "Opaque", "1"]
    kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "plain"}, "stringData": {"a": "hello"}})
    secret = kube.get("secret", "plain")
    assert secret["data"] == {"a": "aGVsbG8="} and "stringData" not in secret and secret["type"] == "Opaque"
    assert "user:  2 bytes" in out(kube, "describe", "secret", "keys")
    assert "a:\n----\nb" in out(kube, "describe", "configmap", "files")


def test_changes(kube):
    kube.kubectl("create", "deployment", "changed", "--image=nginx:1.29-alpine", "--replicas=0")
    target = "deployment/changed"
    assert out(kube, "label", target, "a=b") == "deployment.apps/changed labeled\n"
    assert out(kube, "label", target, "a=b") == "deployment.apps/changed not labeled\n"
    assert kube.kubectl("label", target, "a=c", check=False).returncode == 1
    assert out(kube, "label", target, "a=c", "--overwrite") == "deployment.apps/changed labeled\n"
    assert out(kube, "label", target, "a-") == "deployment.apps/changed unlabeled\n"
    assert out(kube, "annotate", target, "x=y") == "deployment.apps/changed annotated\n"
    assert out(kube, "set", "env", target, "A=b") == "deployment.apps/changed env updated\n"
    assert out(kube, "set", "image", target, "nginx=nginx:1.29") == "deployment.apps/changed image updated\n"
    assert out(kube, "scale", target, "--replicas=1", "--current-replicas=0") == "deployment.apps/changed scaled\n"
    assert "Expected replicas to be 5, was 1" in kube.kubectl("scale", target, "--replicas=0", "--current-replicas=5", check=False).stderr
    assert out(kube, "scale", target, "--replicas=0") == "deployment.apps/changed scaled\n"
    assert out(kube, "patch", target, "-p", '{"spec":{"paused":true}}') == "deployment.apps/changed patched\n"
    # kubectl compares the whole object: the controller's writing of the status, in between, is a change
    kube.wait(lambda: out(kube, "patch", target, "-p", '{"spec":{"paused":true}}') == "deployment.apps/changed patched (no change)\n")
    container = kube.get("deployment", "changed")["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["env"]) == ("nginx:1.29", [{"name": "A", "value": "b"}])
    sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "second", "image": "busybox"}]}}}}
    kube.kubectl("patch", target, "-p", json.dumps(sidecar))
    names = [one["name"] for one in kube.get("deployment", "changed")["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["nginx", "second"], "a strategic merge patch merges containers by name"
    gone = {"spec": {"template": {"spec": {"containers": [{"name": "second", "$patch": "delete"}]}}}}
    kube.kubectl("patch", target, "-p", json.dumps(gone))
    assert [one["name"] for one in kube.get("deployment", "changed")["spec"]["template"]["spec"]["containers"]] == ["nginx"]
    assert out(kube, "delete", target).startswith('deployment.apps "changed" deleted')


def test_edit(kube, tmp_path):
    kube.kubectl("create", "configmap", "edited", "--from-literal=a=before")
    import os
    import subprocess

    from servicelab import kubectl

    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i s/before/after/ \"$1\"\n")
    editor.chmod(0o700)
    command = [kubectl.find(), f"--kubeconfig={kube.kubeconfig}", f"--namespace={kube.name}", "edit", "configmap", "edited"]
    done = subprocess.run(command, env={**os.environ, "KUBE_EDITOR": str(editor)}, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "configmap/edited edited\n", done.stderr
    assert kube.get("configmap", "edited")["data"] == {"a": "after"}


def test_output_forms(kube):
    kube.kubectl("create", "configmap", "forms", "--from-literal=a=1")
    kube.kubectl("create", "configmap", "forms-2", "--from-literal=a=2")
    kube.kubectl("label", "configmap", "forms", "forms-2", "set=forms")
    mine = ("get", "configmaps", "-l", "set=forms")
    assert out(kube, *mine, "-o", "name") == "configmap/forms\nconfigmap/forms-2\n"
    assert out(kube, *mine, "-o", "jsonpath={range .items[*]}{.metadata.name}={.data.a} {end}") == "forms=1 forms-2=2 "
    assert out(kube, *mine, "-o", "custom-columns=N:.metadata.name,A:.data.a") == "N         A\nforms     1\nforms-2   2\n"
    assert out(kube, *mine, "-o", "go-template={{range .items}}{{.data.a}},{{end}}") == "1,2,"
    assert out(kube, *mine, "--sort-by=.data.a", "--no-headers").split()[0] == "forms"
    assert out(kube, *mine, "--show-labels", "--no-headers").split()[-1] == "set=forms"
    assert out(kube, *mine, "-L", "set", "--no-headers").split()[-1] == "forms"
    assert out(kube, *mine, "-A", "--no-headers").split()[0] == kube.name
    assert kube.kubectl("get", "configmaps", "-l", "set=nothing").stderr == f"No resources found in {kube.name} namespace.\n"
    assert len(out(kube, "get", "configmaps", "-l", "set in (forms),!other", "--no-headers").splitlines()) == 2
    listed = yaml.safe_load(out(kube, *mine, "-o", "yaml"))
    assert (listed["kind"], [item["kind"] for item in listed["items"]]) == ("List", ["ConfigMap", "ConfigMap"])


def test_discovery(kube):
    rows = {line.split()[0]: line.split()[1:] for line in out(kube, "api-resources", "--no-headers").splitlines()}
    assert rows["pods"] == ["po", "v1", "true", "Pod"]
    assert rows["deployments"] == ["deploy", "apps/v1", "true", "Deployment"]
    assert rows["endpointslices"] == ["discovery.k8s.io/v1", "true", "EndpointSlice"]
    assert {"v1", "apps/v1", "discovery.k8s.io/v1", "coordination.k8s.io/v1"} <= set(out(kube, "api-versions").split())
    assert "Server Version: v1.34." in out(kube, "version")
    assert "Kubernetes control plane" in out(kube, "cluster-info") and "is running at" in out(kube, "cluster-info")
    assert out(kube, "auth", "can-i", "create", "pods") == "yes\n"
    assert "kubernetes-admin" in out(kube, "auth", "whoami")
    assert "default       Active" in re.sub(r" {2,}", "       ", out(kube, "get", "namespaces"))


def test_explain(kube):
    text = out(kube, "explain", "service.spec.type")
    assert text.startswith("KIND:       Service\nVERSION:    v1\n\nFIELD: type <string>\n")
    assert "LoadBalancer" in text
    assert re.search(r"containerPort\t<integer> -required-", out(kube, "explain", "pod.spec.containers.ports"))
    assert 'field "foo" does not exist' in kube.kubectl("explain", "pod.spec.foo", check=False).stderr


def test_wait(kube):
    kube.kubectl("create", "configmap", "awaited", "--from-literal=a=1")
    assert out(kube, "wait", "configmap/awaited", "--for=jsonpath={.data.a}=1") == "configmap/awaited condition met\n"
    late = kube.kubectl("wait", "configmap/awaited", "--for=jsonpath={.data.a}=2", "--timeout=1s", check=False)
    assert (late.returncode, late.stderr) == (1, "error: timed out waiting for the condition on configmaps/awaited\n")
    kube.kubectl("delete", "configmap", "awaited", "--wait=false")
    kube.kubectl("wait", "configmap/awaited", "--for=delete", "--timeout=30s")


@pytest.mark.parametrize("kind", ["clusterip", "nodeport"])
def test_dry_runs_agree(kube, kind):
    server = yaml.safe_load(out(kube, "create", "service", kind, "dry", "--tcp=80", "--dry-run=server", "-o", "yaml"))
    assert server["spec"]["clusterIP"].startswith("10.96.")
    assert kube.kubectl("get", "service", "dry", check=False).returncode == 1


def test_server_side_apply(kube):
    def apply(manager, data, *options):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned"}, "data": data}
        command = ("apply", "--server-side", f"--field-manager={manager}", *options, "-f", "-")
        return kube.kubectl(*command, input=json.dumps(body), check=False)

    assert apply("one", {"a": "1", "b": "2"}).stdout == "configmap/owned serverside-applied\n"
    refused = apply("two", {"a": "3"})
    assert refused.returncode == 1
    assert 'Apply failed with 1 conflict: conflict with "one": .data.a' in refused.stderr
    assert apply("two", {"a": "1"}).returncode == 0, "the same value may have two owners"
    assert apply("one", {"b": "2"}).returncode == 0
    assert kube.get("configmap", "owned")["data"] == {"a": "1", "b": "2"}, "the second owner keeps it"
    assert apply("two", {}).returncode == 0
    assert kube.get("configmap", "owned")["data"] == {"b": "2"}, "without an owner it goes"
    assert apply("two", {"b": "9"}, "--force-conflicts").returncode == 0
    fields = json.loads(out(kube, "get", "configmap", "owned", "-o", "json", "--show-managed-fields"))["metadata"]["managedFields"]
    assert {(entry["manager"], entry["operation"], json.dumps(entry["fieldsV1"])) for entry in fields} == {
        ("two", "Apply", '{"f:data": {"f:b": {}}}')}


def test_apply_becomes_server_side(kube):
    kube.apply(manifest("moving"))
    done = kube.kubectl("apply", "--server-side", "-f", "-", input=manifest("moving", port=81), check=False)
    assert done.stdout == "deployment.apps/moving serverside-applied\n", done.stderr
    assert ports(kube, "moving") == [{"containerPort": 81, "protocol": "TCP"}]


def test_namespace_goes_with_what_is_in_it(kube):
    name = f"{kube.name}-gone"
    kube.kubectl("create", "namespace", name)
    kube.kubectl("create", "configmap", "inside", f"--namespace={name}")
    assert f'namespace "{name}" deleted' in out(kube, "delete", "namespace", name, "--timeout=150s", timeout=170)
    assert kube.kubectl("get", "configmap", "inside", f"--namespace={name}", check=False).returncode == 1
    assert kube.kubectl("get", "namespace", name, check=False).stderr == f'Error from server (NotFound): namespaces "{name}" not found\n'
