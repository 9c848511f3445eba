"""Bad input gets Kubernetes' own answer: the same words and exit codes on pocket and kind."""

from __future__ import annotations

import json

import pytest


def pod(**spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
            "spec": {"containers": [{"name": "x", "image": "nginx:1.29-alpine"}], **spec}}


def container(**fields):
    return pod(containers=[{"name": "x", "image": "nginx:1.29-alpine", **fields}])


def service(name="x", **spec):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def deployment(labels=None, **spec):
    template = {"metadata": {"labels": labels or {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "nginx:1.29-alpine"}]}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}}


def configmap(name="x", **fields):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **fields}


REFUSED = [
    ("name", {**pod(), "metadata": {"name": "Bad_Name"}},
     'The Pod "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of'),
    ("no containers", pod(containers=[]), 'The Pod "x" is invalid: spec.containers: Required value'),
    ("no image", pod(containers=[{"name": "x"}]), 'The Pod "x" is invalid: spec.containers[0].image: Required value'),
    ("same name twice", pod(containers=[{"name": "x", "image": "a"}, {"name": "x", "image": "a"}]),
     'The Pod "x" is invalid: spec.containers[1].name: Duplicate value: "x"'),
    ("port too high", container(ports=[{"containerPort": 99999}]),
     'spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive'),
    ("wrong type", container(ports=[{"containerPort": "http"}]),
     'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field'
     " ContainerPort.spec.containers.ports.containerPort of type int32"),
    ("unknown field", container(imagee="x"),
     'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containers[0].imagee"'),
    ("volume that isn't there", container(volumeMounts=[{"name": "v", "mountPath": "/x"}]),
     'The Pod "x" is invalid: spec.containers[0].volumeMounts[0].name: Not found: "v"'),
    ("restart policy", pod(restartPolicy="Sometimes"),
     'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'),
    ("quantity", container(resources={"limits": {"cpu": "much"}}), "quantities must match the regular expression"),
    ("request above limit", container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
     'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
    ("probe of nothing", container(readinessProbe={}),
     'The Pod "x" is invalid: spec.containers[0].readinessProbe: Required value: must specify a handler type'),
    ("label", {**pod(), "metadata": {"name": "x", "labels": {"a": "b c"}}}, 'metadata.labels: Invalid value: "b c": a valid label must be'),
    ("service account", pod(serviceAccountName="nobody"), 'serviceaccount "nobody" not found'),
    ("service name", service("1x"), 'The Service "1x" is invalid: metadata.name: Invalid value: "1x": a DNS-1035 label must consist of'),
    ("no ports", {**service(), "spec": {}}, 'The Service "x" is invalid: spec.ports: Required value'),
    ("unnamed ports", service(ports=[{"port": 80}, {"port": 81}]), "* spec.ports[1].name: Required value"),
    ("port zero", service(ports=[{"port": 0}]), "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    ("service type", service(type="Nope"),
     'spec.type: Unsupported value: "Nope": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'),
    ("cluster IP out of range", service(clusterIP="10.0.0.1"),
     'spec.clusterIPs: Invalid value: ["10.0.0.1"]: failed to allocate IP 10.0.0.1: the provided network does not match the current range'),
    ("cluster IP taken", service(clusterIP="10.96.0.1"),
     'spec.clusterIPs: Invalid value: ["10.96.0.1"]: failed to allocate IP 10.96.0.1: provided IP is already allocated'),
    ("node port out of range", service(type="NodePort", ports=[{"port": 80, "nodePort": 80}]),
     "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"),
    ("node port of a ClusterIP Service", service(ports=[{"port": 80, "nodePort": 31999}]),
     "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
    ("external name", {**service(), "spec": {"type": "ExternalName"}}, 'The Service "x" is invalid: spec.externalName: Required value'),
    ("no template", {**deployment(), "spec": {}}, "* spec.selector: Required value"),
    ("selector and labels", deployment(labels={"a": "c"}),
     'spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`'),
    ("replicas", deployment(replicas=-1), 'spec.replicas: Invalid value: -1: must be greater than or equal to 0'),
    ("config key", configmap(data={"a b": "c"}), 'data[a b]: Invalid value: "a b": a valid config key must consist of'),
    ("config value", configmap(data={"a": 1}),
     'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type'
     " string"),
    ("base64", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {"a": "%%%"}},
     "illegal base64 data at input byte 0"),
    ("TLS secret", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "type": "kubernetes.io/tls", "data": {"a": "YQ=="}},
     "* data[tls.crt]: Required value"),
    ("unknown kind", {"apiVersion": "v1", "kind": "Pd", "metadata": {"name": "x"}}, 'no matches for kind "Pd" in version "v1"'),
    ("unknown version", {"apiVersion": "v2", "kind": "Pod", "metadata": {"name": "x"}}, 'no matches for kind "Pod" in version "v2"'),
]


@pytest.mark.parametrize(("body", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(kube, body, words):
    done = kube.kubectl("create", "-f", "-", input=json.dumps(body), check=False)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(("text", "words"), [
    ("apiVersion: v1\nkind: Pod\n metadata: x\n", "error parsing STDIN: error converting YAML to JSON"),
    ('{"apiVersion": "v1", "kind": "Pod"', "error parsing STDIN"),
    ('{"apiVersion": "v1", "metadata": {"name": "x"}}', "ind"),  # "Object 'Kind' is missing", or "kind not set": kubectl's versions differ
], ids=["YAML", "JSON", "no kind"])
def test_malformed_files(kube, text, words):
    done = kube.kubectl("create", "-f", "-", input=text, check=False)
    assert done.returncode == 1 and words in done.stderr


def test_the_same_node_port_twice(kube, fresh):
    def node_port(name, port):
        return {**service(name, type="NodePort", ports=[{"port": 80, "nodePort": port} if port else {"port": 80}])}

    kube.create(node_port("first", 0))
    taken = kube.get("service", "first")["spec"]["ports"][0]["nodePort"]
    done = fresh.kubectl("create", "-f", "-", input=json.dumps(node_port("second", taken)), check=False)
    assert done.returncode == 1
    words = f"spec.ports[0].nodePort: Invalid value: {taken}: provided port is already allocated"
    assert done.stderr == f'The Service "second" is invalid: {words}\n'
    kube.kubectl("delete", "service", "first")
    fresh.create(node_port("second", taken))


def refuse(kube, *args):
    done = kube.kubectl(*args, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_what_cannot_be_changed(kube):
    kube.create(deployment(replicas=0))
    assert "field is immutable" in refuse(kube, "patch", "deployment", "x", "-p", '{"spec":{"selector":{"matchLabels":{"c":"d"}}}}')
    assert "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'" in refuse(
        kube, "patch", "deployment", "x", "-p", '{"spec":{"strategy":{"type":"Recreate"}}}')
    kube.create(service("fixed"))
    assert "spec.clusterIPs[0]: Invalid value" in refuse(
        kube, "patch", "service", "fixed", "-p", '{"spec":{"clusterIP":"10.96.9.9","clusterIPs":["10.96.9.9"]}}')
    kube.create(configmap("fixed", immutable=True, data={"a": "1"}))
    assert refuse(kube, "patch", "configmap", "fixed", "-p", '{"data":{"a":"2"}}') == \
        'The ConfigMap "fixed" is invalid: data: Forbidden: field is immutable when `immutable` is set\n'
    kube.create({**pod(), "metadata": {"name": "fixed"}})
    assert 'The Pod "fixed" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`' in refuse(
        kube, "patch", "pod", "fixed", "-p", '{"spec":{"hostname":"other"}}')
    kube.kubectl("label", "pod", "fixed", "may=change")
    kube.kubectl("delete", "pod", "fixed", "--now", "--wait=false")


def test_what_is_not_there(kube):
    assert refuse(kube, "get", "pod", "nope") == 'Error from server (NotFound): pods "nope" not found\n'
    assert refuse(kube, "get", "widgets") == 'error: the server doesn\'t have a resource type "widgets"\n'
    assert refuse(kube, "delete", "service", "nope") == 'Error from server (NotFound): services "nope" not found\n'
    assert refuse(kube, "patch", "deployment", "nope", "-p", "{}") == 'Error from server (NotFound): deployments.apps "nope" not found\n'
    assert refuse(kube, "create", "configmap", "c", "--namespace=no-such-namespace") == \
        'error: failed to create configmap: namespaces "no-such-namespace" not found\n'
    assert refuse(kube, "get", "pods", "--field-selector=spec.foo=1") == (
        'Error from server (BadRequest): Unable to find "/v1, Resource=pods" that match label selector "", field selector "spec.foo=1": '
        "field label not supported: spec.foo\n")


def test_conflicting_versions(kube):
    kube.create(configmap("versioned"))
    stale = kube.get("configmap", "versioned")
    kube.kubectl("label", "configmap", "versioned", "a=b")
    done = kube.kubectl("replace", "-f", "-", input=json.dumps(stale), check=False)
    assert done.returncode == 1 and 'Operation cannot be fulfilled on configmaps "versioned": the object has been modified' in done.stderr
    assert kube.kubectl("create", "configmap", "versioned", check=False).stderr == \
        'error: failed to create configmap: configmaps "versioned" already exists\n'


def test_sizes(kube, tmp_path):
    for size in (1_000_000, 2_000_000):
        (tmp_path / str(size)).write_text("x" * size)
    kube.kubectl("create", "configmap", "large", f"--from-file={tmp_path / '1000000'}")
    source, words = f"--from-file={tmp_path / '2000000'}", "Too long: may not be more than 1048576 bytes"
    assert words in refuse(kube, "create", "configmap", "larger", source)
    assert words in refuse(kube, "create", "secret", "generic", "larger", source)


def test_system_namespaces_stay(kube):
    words = 'Error from server (Forbidden): namespaces "default" is forbidden: this namespace may not be deleted\n'
    assert refuse(kube, "delete", "namespace", "default").endswith(words)
