"""What a container finds: environment, volumes, hosts, DNS configuration. The same on pocket and kind."""

from __future__ import annotations

import base64
import secrets

import pytest
from test_pods_run import CURL, NGINX, container, events, pod, reason, unique

from harness import Kube


@pytest.fixture(scope="module")
def sources(kube: Kube) -> Kube:
    kube.apply(
        [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"COLOUR": "blue", "file.txt": "first\n"}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "data": {"key": base64.b64encode(b"s3cret").decode()}},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "my-web"},
                "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80}, {"name": "https-alt", "port": 8443}]},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "headless"},
                "spec": {"clusterIP": "None", "selector": {"app": "x"}, "ports": [{"port": 80}]},
            },
        ]
    )
    return kube


def variables(kube: Kube, name: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in kube.exec(name, "env").splitlines() if "=" in line)


def test_environment(sources: Kube):
    kube, name = sources, unique("env")
    kube.apply(
        pod(
            name,
            {
                "command": ["sh", "-c", "sleep 1000 # $(PLAIN)"],
                "args": ["$(PLAIN)"],
                "envFrom": [{"configMapRef": {"name": "conf"}, "prefix": "P_"}, {"secretRef": {"name": "nope", "optional": True}}],
                "env": [
                    {"name": "PLAIN", "value": "plain"},
                    {"name": "BOTH", "value": "$(PLAIN)-$(NOPE)-$$(PLAIN)"},
                    {"name": "WEB", "value": "http://$(MY_WEB_SERVICE_HOST):$(MY_WEB_SERVICE_PORT_HTTP)"},
                    {"name": "FROM_CONF", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "COLOUR"}}},
                    {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}},
                    {"name": "ABSENT", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "nope", "optional": True}}},
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory"}}},
                ],
                "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"memory": "32Mi"}},
            },
            labels={"app": "x"},
        )
    )
    kube.wait("condition=Ready", f"pod/{name}")
    made, env = kube.get("pod", name), variables(kube, name)
    service = kube.get("service", "my-web")["spec"]["clusterIP"]
    expected = {
        "PLAIN": "plain",
        "BOTH": "plain-$(NOPE)-$(PLAIN)",
        "FROM_CONF": "blue",
        "FROM_SECRET": "s3cret",
        "P_COLOUR": "blue",
        "NAME": name,
        "LABEL": "x",
        "IP": made["status"]["podIP"],
        "NODE": made["spec"]["nodeName"],
        "CPU": "250",
        "MEM": "33554432",
        "HOSTNAME": name,
        "HOME": "/root",
        "WEB": f"http://{service}:80",
        "MY_WEB_SERVICE_HOST": service,
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP": "80",
        "MY_WEB_SERVICE_PORT_HTTPS_ALT": "8443",
        "MY_WEB_PORT": f"tcp://{service}:80",
        "MY_WEB_PORT_80_TCP": f"tcp://{service}:80",
        "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80",
        "MY_WEB_PORT_80_TCP_ADDR": service,
        "MY_WEB_PORT_8443_TCP": f"tcp://{service}:8443",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    }
    assert {k: env.get(k) for k in expected} == expected
    assert "ABSENT" not in env and not [k for k in env if k.startswith("HEADLESS")]
    # nothing but these, the other variables of the Services, and what every container has
    rest = {k for k in env if k not in expected and not k.startswith(("MY_WEB_", "KUBERNETES_", "P_"))}
    assert rest <= {"PATH", "PWD", "SHLVL", "OLDPWD", "_"}
    assert kube.exec(name, "cat", "/proc/1/cmdline").replace("\0", " ").startswith("sleep 1000") or "# plain" in kube.exec(
        name, "cat", "/proc/1/cmdline"
    )


def test_service_links_off(sources: Kube):
    kube, name = sources, unique("nolinks")
    kube.apply(pod(name, {"command": ["sleep", "1000"]}, enableServiceLinks=False))
    kube.wait("condition=Ready", f"pod/{name}")
    env = variables(kube, name)
    assert "KUBERNETES_SERVICE_HOST" in env and not [k for k in env if k.startswith("MY_WEB")]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"configMapKeyRef": {"name": "nope", "key": "a"}}, 'configmap "nope" not found'),
        ({"secretKeyRef": {"name": "nope", "key": "a"}}, 'secret "nope" not found'),
        ({"configMapKeyRef": {"name": "conf", "key": "nope"}}, "couldn't find key nope in ConfigMap {}/conf"),
        ({"secretKeyRef": {"name": "secret", "key": "nope"}}, "couldn't find key nope in Secret {}/secret"),
    ],
)
def test_missing_sources_of_variables(sources: Kube, reference: dict, words: str):
    kube, name = sources, unique("nokey")
    kube.apply(pod(name, {"env": [{"name": "A", "valueFrom": reference}]}))
    text = words.format(kube.name)
    waiting = {"reason": "CreateContainerConfigError", "message": text}
    # a kubelet that hasn't its cache of them within a second says "failed to sync configmap cache" first
    kube.wait(lambda: container(kube, name)["state"]["waiting"] == waiting)
    kube.wait(lambda: ("Failed", f"Error: {text}") in events(kube, name))


def test_volumes_and_their_changes(sources: Kube):
    kube, name, conf = sources, unique("vol"), unique("conf")
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": conf}, "data": {"a": "1", "b": "2"}})
    kube.apply(
        pod(
            name,
            {
                "command": ["sleep", "1000"],
                "volumeMounts": [
                    {"name": "conf", "mountPath": "/conf"},
                    {"name": "secret", "mountPath": "/secret"},
                    {"name": "items", "mountPath": "/items"},
                    {"name": "all", "mountPath": "/all"},
                    {"name": "conf", "mountPath": "/etc/one.txt", "subPath": "a"},
                ],
            },
            labels={"app": "vol"},
            volumes=[
                {"name": "conf", "configMap": {"name": conf}},
                {"name": "secret", "secret": {"secretName": "secret", "defaultMode": 0o400}},
                {"name": "items", "configMap": {"name": "conf", "items": [{"key": "file.txt", "path": "deep/er/x", "mode": 0o600}]}},
                {
                    "name": "all",
                    "projected": {
                        "sources": [
                            {"configMap": {"name": "conf", "items": [{"key": "COLOUR", "path": "colour"}]}},
                            {"secret": {"name": "secret"}},
                            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                        ]
                    },
                },
            ],
        )
    )
    kube.wait("condition=Ready", f"pod/{name}")
    assert kube.exec(
        name, "sh", "-c", "cat /conf/a /conf/b /secret/key /items/deep/er/x /all/colour /all/key /all/labels /etc/one.txt"
    ) == ('12s3cretfirst\nblues3cretapp="vol"1')
    assert kube.exec(name, "sh", "-c", "stat -L -c %a /secret/key /items/deep/er/x /conf/a; readlink /conf/a; ls /conf") == (
        "400\n600\n644\n..data/a\na\nb\n"
    )
    refused = kube.kubectl("exec", name, "--", "sh", "-c", "echo x > /conf/a", check=False)
    assert "Read-only file system" in refused.stderr
    kube.kubectl("patch", "configmap", conf, "--type=merge", "-p", '{"data":{"a":"changed","b":null,"c":"3"}}')

    def changed() -> bool:
        # kind's kubelet looks once a minute; a change of the pod makes it look at once, perhaps before it has heard of the ConfigMap's
        kube.kubectl("annotate", "pod", name, f"look={secrets.token_hex(3)}", "--overwrite")
        return kube.exec(name, "sh", "-c", "cat /conf/a /conf/c; ls /conf") == "changed3a\nc\n"

    kube.wait(changed, timeout=150)
    assert kube.exec(name, "cat", "/etc/one.txt") == "1"  # a subPath doesn't follow


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"secret": {"secretName": "later"}}, 'MountVolume.SetUp failed for volume "v" : secret "later" not found'),
        ({"configMap": {"name": "later"}}, 'MountVolume.SetUp failed for volume "v" : configmap "later" not found'),
    ],
)
def test_a_missing_source_of_a_volume_holds_the_pod_until_it_comes(fresh: Kube, volume: dict, words: str):
    kube, name = fresh, unique("later")
    kube.apply(pod(name, {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, volumes=[{"name": "v", **volume}]))
    kube.wait(lambda: ("FailedMount", words) in events(kube, name))
    kube.wait(lambda: reason(kube, name) == "ContainerCreating")  # told on its own way, perhaps after the event
    assert kube.get("pod", name)["status"]["phase"] == "Pending"
    kube.kubectl("create", *(("secret", "generic") if "secret" in volume else ("configmap",)), "later", "--from-literal=a=1")
    kube.wait("condition=Ready", f"pod/{name}", timeout=150)
    assert kube.exec(name, "cat", "/v/a") == "1"


def test_service_account_volume(sources: Kube):
    kube, name = sources, unique("sa")
    kube.apply(pod(name, {"command": ["sleep", "1000"]}))
    kube.wait("condition=Ready", f"pod/{name}")
    directory = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert kube.exec(name, "cat", f"{directory}/namespace") == kube.name
    assert "BEGIN CERTIFICATE" in kube.exec(name, "cat", f"{directory}/ca.crt")
    token = kube.exec(name, "cat", f"{directory}/token")
    claims = base64.urlsafe_b64decode(token.split(".")[1] + "==").decode()
    assert token.count(".") == 2 and f"system:serviceaccount:{kube.name}:default" in claims


def test_hosts_and_resolver(sources: Kube):
    kube, name = sources, unique("hosts")
    kube.apply(
        pod(
            name,
            {"command": ["sleep", "1000"]},
            hostname="one",
            subdomain="sub",
            hostAliases=[{"ip": "10.1.2.3", "hostnames": ["a", "b"]}],
            dnsConfig={"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}], "searches": ["example.com"]},
        )
    )
    kube.wait("condition=Ready", f"pod/{name}")
    hosts = kube.exec(name, "cat", "/etc/hosts")
    address = kube.get("pod", name)["status"]["podIP"]
    assert hosts.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert f"{address}\tone.sub.{kube.name}.svc.cluster.local\tone\n" in hosts
    assert hosts.endswith("\n# Entries added by HostAliases.\n10.1.2.3\ta\tb\n")
    assert kube.exec(name, "hostname") == "one\n"
    lines = kube.exec(name, "cat", "/etc/resolv.conf").splitlines()
    assert "nameserver 10.96.0.10" in lines
    assert f"search {kube.name}.svc.cluster.local svc.cluster.local cluster.local example.com" in lines
    options = next(line for line in lines if line.startswith("options")).split()[1:]
    assert sorted(options) == ["edns0", "ndots:2"]


def test_dns_policy_none(sources: Kube):
    kube, name = sources, unique("dnsnone")
    kube.apply(pod(name, {"command": ["sleep", "1000"]}, dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]}))
    kube.wait("condition=Ready", f"pod/{name}")
    assert kube.exec(name, "cat", "/etc/resolv.conf") == "nameserver 192.0.2.1\n"


def test_configured_nginx(sources: Kube):
    """The way the lessons use it: conf.d from a ConfigMap, a page from another, reload on demand."""
    kube, name, conf = sources, unique("ngx"), unique("ngxconf")
    server = "server { listen 8080; location / { return 200 'from the ConfigMap\\n'; } }\n"
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": conf}, "data": {"default.conf": server}})
    kube.apply(
        pod(
            name,
            {
                "image": NGINX,
                "volumeMounts": [{"name": "c", "mountPath": "/etc/nginx/conf.d"}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            },
            {"image": CURL, "command": ["sleep", "1000"]},
            volumes=[{"name": "c", "configMap": {"name": conf}}],
        )
    )
    kube.wait("condition=Ready", f"pod/{name}")
    assert kube.exec(name, "curl", "-s", "localhost:8080", container="c1") == "from the ConfigMap\n"
    assert kube.kubectl("exec", name, "-c", "c", "--", "nginx", "-s", "reload").returncode == 0
    assert kube.exec(name, "curl", "-s", "localhost:8080", container="c1") == "from the ConfigMap\n"
