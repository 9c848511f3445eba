"""Checks of lesson 05, both ways, and the steps by which a certificate reaches a server."""

import contextlib
import json

import pytest

from servicelab import certificates, tls
from servicelab.errors import LabError

NAMES = ["my-nginx"]


@pytest.fixture
def secured(asked):
    """The secured servers and their client run, with a certificate for my-nginx."""
    tls.rotate(asked.lab, certificates.self_signed("my-nginx", NAMES))
    for name in ("nginxconfigmap.yaml", "nginx-secure-app.yaml", "curlpod.yaml"):
        asked.run(f"apply -f {asked.lab.manifest(name)}")
    for deployment in ("my-nginx", "curl-deployment"):
        asked.kube.rollout(deployment)
    return asked


def put(asked, secret: dict) -> None:
    asked.kube.kubectl("delete", "secret", secret["metadata"]["name"], "--ignore-not-found")
    asked.kube.create(secret)


def config(asked, **data: str) -> None:
    asked.kube.kubectl("delete", "configmap", "lesson-ca", "--ignore-not-found")
    asked.kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lesson-ca"}, "data": data})


def test_secret(asked):
    pair, other = certificates.self_signed("my-nginx", key_type="ec"), certificates.self_signed("my-nginx", key_type="ec")
    asked.fails("secret_holds_pair", saying="there is no Secret nginxsecret", hint="kubectl create secret tls")
    whole = pair.secret("nginxsecret")
    put(asked, whole | {"type": "Opaque", "data": {"nginx.crt": whole["data"]["tls.crt"], "nginx.key": whole["data"]["tls.key"]}})
    asked.fails("secret_holds_pair", saying="it holds nginx.crt, nginx.key", hint="The names of the keys count")
    put(asked, whole | {"type": "Opaque", "data": {"tls.crt": whole["data"]["tls.key"], "tls.key": whole["data"]["tls.key"]}})
    asked.fails("secret_holds_pair", saying="is no certificate with its key", hint="kubectl create secret tls")
    put(asked, certificates.KeyPair(pair.certificate, other.key).secret("nginxsecret"))
    asked.fails("secret_holds_pair", saying="not the key of its certificate", hint="different runs")
    put(asked, whole | {"type": "Opaque"})
    asked.fails("secret_holds_pair", saying="is of type Opaque", hint="can't be changed")
    put(asked, whole)
    assert "CN=my-nginx" in asked.passes("secret_holds_pair")


def test_rotation_and_refusals(secured, tmp_path):
    lab = secured.lab
    pods = {pod["metadata"]["uid"] for pod in lab.list("pods")}
    assert secured.passes("certificate_follows_secret")
    secured.fails("expired_is_refused", saying="is valid", hint="certificates.expired")
    full = f"my-nginx.{secured.kube.name}.svc.cluster.local"
    secured.fails("certificate_has_all_names", saying=f"isn't good for my-nginx.{secured.kube.name}, {full}", hint="subjectAltName")

    # The Secret alone: the file follows, and nginx goes on with what it has read.
    put(secured, certificates.self_signed("my-nginx", NAMES, key_type="ec").secret("nginxsecret"))
    secured.fails("certificate_follows_secret", saying="clients are served another", hint="nginx -s reload")

    tls.rotate(lab, certificates.self_signed("my-nginx", [], key_type="ec"))
    secured.fails("certificate_follows_secret", saying="has no names", hint="addext")
    verdicts = tls.clients(lab, _file(lab, tmp_path))
    assert verdicts["curl"] == "accepts it"
    assert "legacy Common Name" in verdicts["kubectl (Go)"]
    assert verdicts["Python (RFC 9525)"].startswith("refuses: Hostname mismatch")

    tls.rotate(lab, certificates.expired("my-nginx"))
    assert "ran out" in secured.passes("expired_is_refused")
    secured.fails("certificate_has_all_names", saying="is expired", hint="tls.rotate")
    assert all("expired" in verdict for verdict in tls.clients(lab, _file(lab, tmp_path)).values())

    names = ["my-nginx", f"my-nginx.{secured.kube.name}", full]
    tls.rotate(lab, certificates.self_signed("my-nginx", names, key_type="ec"))
    secured.fails("certificate_has_all_names", saying="valid for 365 days", hint="days=30")
    tls.rotate(lab, certificates.self_signed("my-nginx", names, days=30, key_type="ec"))
    assert "for 30 days" in secured.passes("certificate_has_all_names")
    assert set(tls.clients(lab, _file(lab, tmp_path)).values()) == {"accepts it"}
    assert pods == {pod["metadata"]["uid"] for pod in lab.list("pods")}, "a rotation must not replace pods"


def _file(lab, directory):
    """The certificate in the Secret as a file that clients of this machine can be told to trust."""
    path = directory / "trusted.crt"
    path.write_text(lab.kubectl("get", "secret", "nginxsecret", "-o", r"go-template={{index .data `tls.crt` | base64decode}}"))
    return path


def test_a_reloaded_server_is_looked_at_until_its_old_workers_are_gone(asked, monkeypatch):
    old, new = (certificates.self_signed("my-nginx", key_type="ec").certificate.decode() for _ in "on")
    answers = iter([old, None, new, old, new, new, old])  # either may answer for a moment, and a pod may not answer at once

    def handshake(_port: int) -> str:
        answer = next(answers, new)
        if answer is None:
            raise LabError("the pod did not answer with TLS")
        return answer

    monkeypatch.setattr(tls, "forwarded", lambda *_: contextlib.nullcontext(0))
    monkeypatch.setattr(tls, "_handshake", handshake)
    monkeypatch.setattr(asked.lab, "list", lambda *_: [{"metadata": {"name": "my-nginx-1"}}])
    tls.wait_until_served(asked.lab, new.encode())
    assert next(answers, "none left") == "none left"


def test_authority(secured):
    lab, authority = secured.lab, certificates.Authority.create("Lesson CA")
    secured.fails("signed_by_authority", saying="there is no ConfigMap lesson-ca", hint="certificates.Authority")
    config(secured, **{"ca.crt": authority.certificate.decode(), "ca.key": authority.pair.key.decode()})
    secured.fails("signed_by_authority", saying="a private key lies in the ConfigMap", hint="this key is burnt")
    config(secured, **{"authority.pem": authority.certificate.decode()})
    secured.fails("signed_by_authority", saying="lesson-ca has no ca.crt: it holds authority.pem", hint="name of the file")
    config(secured, **{"ca.crt": "my authority"})
    secured.fails("signed_by_authority", saying="ca.crt in lesson-ca is not a certificate", hint="authority.certificate")
    config(secured, **{"ca.crt": authority.sign("my-nginx").certificate.decode()})
    secured.fails("signed_by_authority", saying="may not sign others", hint="Authority")
    config(secured, **{"ca.crt": authority.certificate.decode()})
    secured.fails("signed_by_authority", saying="is signed by itself", hint="authority.sign")
    tls.rotate(lab, certificates.Authority.create("Lesson CA").sign("my-nginx"))  # the same name, another key
    secured.fails("signed_by_authority", saying="not by the authority in lesson-ca", hint="authority.sign")
    tls.rotate(lab, authority.sign("shop"))
    secured.fails("signed_by_authority", saying="it is for shop, not for my-nginx", hint='sign("my-nginx")')
    tls.rotate(lab, authority.sign("my-nginx"))
    assert "signed by CN=Lesson CA" in secured.passes("signed_by_authority")


def test_what_can_not_be_reached_says_so(asked):
    with pytest.raises(LabError, match=r"port-forward pod/nobody did not start.*not found"):
        tls.served(asked.lab, "pod/nobody")
    asked.fails("certificate_follows_secret", saying="there is no Secret", hint="kubectl create secret tls")
    asked.kube.apply(json.loads(json.dumps(certificates.self_signed("my-nginx", key_type="ec").secret("nginxsecret"))))
    asked.fails("certificate_follows_secret", saying="0 of 1 pods", hint="nginx-secure-app.yaml")
