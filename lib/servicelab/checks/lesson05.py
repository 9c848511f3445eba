"""Checks of lesson 05, TLS: what each server serves, seen in a handshake with it, and what the client pod thinks of it."""

from __future__ import annotations

import base64
import binascii
import datetime

from servicelab import certificates, tls
from servicelab.checks.framework import Missing, checker
from servicelab.checks.looks import find, ready_pods

SERVERS, CLIENTS = tls.SERVERS, tls.CLIENTS
CREATE = "kubectl create secret tls nginxsecret --cert=$CERTS/nginx.crt --key=$CERTS/nginx.key"
REPLACE = f"{CREATE} --dry-run=client -o yaml | kubectl replace -f -"
APPLY = "kubectl apply -f ../manifests/nginxconfigmap.yaml -f ../manifests/nginx-secure-app.yaml"
APPLY_CLIENT = "kubectl apply -f ../manifests/curlpod.yaml"
RELOAD = "kubectl exec deployment/my-nginx -- nginx -s reload   (or tls.rotate(lab, pair), which does every step)"


def _secret(lab) -> certificates.KeyPair:
    """Certificate and key in the Secret.

    Raises:
        Missing: there is no Secret, or no usable pair in it.
    """
    secret = find(lab, "secrets", "nginxsecret")
    if secret is None:
        raise Missing("there is no Secret nginxsecret", "`kubectl create secret tls` makes one.", CREATE, settles=False)
    data = secret.get("data") or {}
    lacking = [key for key in ("tls.crt", "tls.key") if not data.get(key)]
    if lacking:
        raise Missing(
            f"nginxsecret has no {' and no '.join(lacking)}: it holds {', '.join(sorted(data)) or 'nothing'}",
            "The names of the keys count: nginx looks for the files tls.crt and tls.key.",
            "`kubectl create secret tls` gives them the right names.",
            f"kubectl delete secret nginxsecret; {CREATE}",
            settles=False,
        )
    try:
        pair = certificates.KeyPair(base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"]))
        fits = certificates.belong_together(pair.certificate, pair.key)
    except (ValueError, TypeError, binascii.Error) as error:
        why = str(error).splitlines()[0]
        raise Missing(f"what nginxsecret holds is no certificate with its key: {why}", CREATE, settles=False) from error
    if not fits:
        raise Missing(
            "the key in nginxsecret is not the key of its certificate: nginx won't start with them",
            "Each run of openssl makes a new pair. Were the files made in different runs?",
            REPLACE,
            settles=False,
        )
    return pair


def _served(lab) -> bytes:
    """The certificate that all servers serve, the same from each.

    Raises:
        Missing: no server is ready, or they don't serve the same.
    """
    pods = ready_pods(lab, SERVERS, 1, "kubectl get pods -l run=my-nginx", "kubectl describe pods -l run=my-nginx", APPLY)
    found = {tls.served_pem(lab, f"pod/{pod['metadata']['name']}") for pod in pods}
    if len(found) > 1:
        raise Missing("the pods of my-nginx serve different certificates", "One of them has not read its files again.", RELOAD)
    return found.pop()


def _in_use(lab) -> bytes:
    """The certificate in the Secret, once every server serves it.

    Raises:
        Missing: it is not served.
    """
    pair = _secret(lab)
    served = _served(lab)
    if certificates.describe(served).fingerprint != certificates.describe(pair.certificate).fingerprint:
        raise Missing(
            "the Secret holds one certificate, and clients are served another",
            "First the file in the pod follows (within about a minute), then nginx has to read it.",
            'Make the kubelet look now: kubectl annotate pods -l run=my-nginx --overwrite looked-at="$(date)"',
            RELOAD,
        )
    return pair.certificate


def _client_says(lab, url: str, *options: str) -> str:
    """The first line of what curl in the client pod says about a URL: an HTTP status, or its refusal."""
    ready_pods(lab, CLIENTS, 1, APPLY_CLIENT)
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", *options, url]
    lines = lab.run_in_pod("deployment/curl-deployment", command).splitlines()
    refusals = [line for line in lines if "curl: (" in line]
    return refusals[0][refusals[0].index("curl: (") :] if refusals else "".join(lines[:1]).strip()


@checker(lesson=5, title="a Secret holds certificate and key")
def secret_holds_pair(lab) -> str:
    """The Secret `nginxsecret` is of type kubernetes.io/tls and holds a certificate and the key that belongs to it."""
    pair = _secret(lab)
    kind = lab.get("secrets", "nginxsecret").get("type")
    if kind != "kubernetes.io/tls":
        raise Missing(
            f"nginxsecret is of type {kind}; then nobody checks what is in it",
            "The type can't be changed: delete it and make it again.",
            f"kubectl delete secret nginxsecret; {CREATE}",
            settles=False,
        )
    return f"nginxsecret holds a certificate for {certificates.describe(pair.certificate).subject}, and its key"


@checker(lesson=5, title="a new certificate without a new pod")
def certificate_follows_secret(lab) -> str:
    """Every server serves the certificate in the Secret, it has a subjectAltName, and no container was restarted."""
    seen = certificates.describe(_in_use(lab))
    if not seen.covers("my-nginx"):
        raise Missing(
            f"the certificate in use has {'the names ' + ', '.join(seen.names) if seen.names else 'no names'}: my-nginx isn't among them",
            "Clients compare the name in the URL with the subjectAltName.",
            'openssl req … -addext "subjectAltName=DNS:my-nginx"',
            settles=False,
        )
    pods = ready_pods(lab, SERVERS, 1, APPLY)
    restarts = sum(status.get("restartCount", 0) for pod in pods for status in pod["status"].get("containerStatuses", []))
    if restarts:
        why = "kubectl describe pods -l run=my-nginx"
        raise Missing(f"containers of my-nginx were restarted {restarts} times", why, RELOAD, settles=False)
    return "the servers serve what the Secret holds, and none of them was restarted"


@checker(lesson=5, title="an expired certificate is refused")
def expired_is_refused(lab) -> str:
    """The servers serve an expired certificate, and the client says so."""
    seen = certificates.describe(_in_use(lab))
    if seen.state() != "expired":
        raise Missing(
            f"the certificate in use is {seen.state()}",
            "This check wants to see one whose date has passed.",
            'tls.rotate(lab, certificates.expired("my-nginx"))',
            settles=False,
        )
    said = _client_says(lab, "https://my-nginx", "--cacert", tls.CERTIFICATE_IN_POD)
    if "expired" not in said:
        raise Missing(
            f"the client doesn't complain about the date: it says {said}",
            "Does the client trust the same certificate? Its file follows the Secret, too.",
            'kubectl annotate pods -l app=curlpod --overwrite looked-at="$(date)"',
        )
    return "the certificate ran out, and the client refuses it for that reason"


@checker(lesson=5, title="a certificate with all names of the Service")
def certificate_has_all_names(lab) -> str:
    """Exercise: the certificate in use is valid for 30 days or less and covers the Service's three names; the client accepts each."""
    seen = certificates.describe(_in_use(lab))
    names = ["my-nginx", f"my-nginx.{lab.namespace}", f"my-nginx.{lab.namespace}.svc.cluster.local"]
    call = f'tls.rotate(lab, certificates.self_signed("my-nginx", {names}, days=30))'
    if seen.state() != "valid":
        raise Missing(
            f"the certificate in use is {seen.state()}",
            "Make a new one, and bring it to the servers as you have done before: Secret, file, reload.",
            "`certificates.self_signed` makes a pair, `tls.rotate(lab, pair)` brings it in.",
            call,
            settles=False,
        )
    lacking = [name for name in names if not seen.covers(name)]
    if lacking:
        raise Missing(
            f"the certificate in use isn't good for {', '.join(lacking)}",
            "Every name that clients use has to stand in subjectAltName; the CN counts for nothing.",
            "`names` of certificates.self_signed takes a list; openssl: subjectAltName=DNS:one,DNS:two,DNS:three",
            call,
            settles=False,
        )
    days = (seen.not_after - seen.not_before) / datetime.timedelta(days=1)
    if days > 30.01:
        wish = "30 or fewer were asked for: `days=30`, or -days 30 with openssl."
        raise Missing(f"it is valid for {days:.0f} days", wish, call, settles=False)
    for name in names:
        said = _client_says(lab, f"https://{name}", "--cacert", tls.CERTIFICATE_IN_POD)
        if said != "200":
            raise Missing(
                f"the certificate is good for {name}, and the client says: {said}",
                "Does the client trust the new certificate? The file in its pod follows the Secret, too.",
                'kubectl annotate pods -l app=curlpod --overwrite looked-at="$(date)"',
            )
    return f"good for {', '.join(names)}, for {days:.0f} days"


@checker(lesson=5, title="a certificate signed by an authority of one's own")
def signed_by_authority(lab) -> str:
    """Exercise: ConfigMap `lesson-ca` holds an authority's certificate (no key), and the servers serve one that it has signed."""
    make = 'authority = certificates.Authority.create("Lesson CA"); (certs / "ca.crt").write_bytes(authority.certificate)'
    create = "kubectl create configmap lesson-ca --from-file=$CERTS/ca.crt"
    config = find(lab, "configmaps", "lesson-ca")
    if config is None:
        raise Missing(
            "there is no ConfigMap lesson-ca",
            "Make the authority first: certificates.Authority",
            "Write its certificate to a file ca.crt; `kubectl create configmap --from-file` takes it from there.",
            f"{make}; !{create}",
            settles=False,
        )
    data = config.get("data") or {}
    if any("PRIVATE KEY" in value for value in data.values()):
        raise Missing(
            "a private key lies in the ConfigMap lesson-ca, where everybody may read it",
            "Whoever has the authority's key can sign certificates for any name. Its certificate alone goes to clients.",
            f"kubectl delete configmap lesson-ca; then a new authority, since this key is burnt: {make}",
            settles=False,
        )
    if "ca.crt" not in data:
        raise Missing(
            f"lesson-ca has no ca.crt: it holds {', '.join(sorted(data)) or 'nothing'}",
            "The name of the file becomes the name of the entry.",
            f"kubectl delete configmap lesson-ca; {create}",
            settles=False,
        )
    try:
        authority = certificates.describe(data["ca.crt"])
    except ValueError as error:
        raise Missing(f"ca.crt in lesson-ca is {error}", "authority.certificate is what belongs there.", make, settles=False) from error
    if not authority.is_authority:
        raise Missing(f"the certificate of {authority.subject} in lesson-ca may not sign others", make, settles=False)
    certificate = _in_use(lab)
    seen = certificates.describe(certificate)
    if seen.fingerprint == authority.fingerprint or not certificates.issued_by(certificate, data["ca.crt"].encode()):
        raise Missing(
            f"the certificate in use is signed by {'itself' if seen.self_signed else seen.issuer}, not by the authority in lesson-ca",
            "The authority has a method that makes a pair and signs its certificate: authority.sign",
            'tls.rotate(lab, authority.sign("my-nginx"))',
            settles=False,
        )
    if not seen.covers("my-nginx"):
        raise Missing(f"it is for {', '.join(seen.names) or 'no name'}, not for my-nginx", 'authority.sign("my-nginx")', settles=False)
    # The real test: a client that trusts the authority and nobody else. The ConfigMap's text goes to it as a file for one command.
    ready_pods(lab, CLIENTS, 1, APPLY_CLIENT)
    ask = 'curl -sS -o /dev/null -w "%{http_code}" --max-time 5 --cacert "$f" https://my-nginx'
    script = f'f=$(mktemp) && printf "%s\\n" "$0" >"$f" && {ask}; rm -f "$f"'
    said = lab.run_in_pod("deployment/curl-deployment", ["sh", "-c", script, data["ca.crt"]])
    if not said.endswith("200"):
        words = "".join(said.splitlines()[:1]) or "nothing"
        raise Missing(f"a client that trusts the authority says: {words}", "kubectl get endpointslices", RELOAD)
    return f"signed by {authority.subject}: a client that trusts this authority, and nobody else, gets the page"
