"""TLS as clients meet it: who accepts a server's certificate, which one it serves now, and how a new one reaches it.

Everything here is observed: handshakes with the pods themselves, through `kubectl port-forward`, which reaches them from the
learner's machine on every cluster.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path

from servicelab.certificates import Description, KeyPair, describe
from servicelab.errors import LabError, NotYet

SERVERS, CLIENTS = "run=my-nginx", "app=curlpod"  # the pods of nginx-secure-app.yaml and of curlpod.yaml
CERTIFICATE_IN_POD = "/etc/nginx/ssl/tls.crt"
PATIENCE_WITH_VOLUMES = 150  # seconds: a kubelet looks at mounted Secrets about once a minute (its syncFrequency)
STEADY_SECONDS = 0.5  # a reloaded nginx sends its old workers away 100 ms after the new ones came; until then either may answer


@contextlib.contextmanager
def forwarded(lab, target: str, port: int) -> Iterator[int]:
    """Forward a free port of this machine's loopback to a pod, as long as the block runs.

    Args:
        lab: what `connect()` gave.
        target: as `kubectl port-forward` takes it, such as ``pod/my-nginx-abc`` or ``deployment/my-nginx``.
        port: the port in the pod.

    Yields:
        The local port.

    Raises:
        LabError: if kubectl can't forward; with kubectl's own words.
    """
    command = ["kubectl", "port-forward", "--namespace", lab.namespace, "--address", "127.0.0.1", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        too_late = threading.Timer(30, process.terminate)  # readline below has no timeout of its own
        too_late.start()
        try:
            line = process.stdout.readline()
            too_late.cancel()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if not found:
                process.terminate()
                raise LabError(f"kubectl port-forward {target} did not start: {process.stderr.read().strip() or 'no answer in 30 s'}")
            # What kubectl says from now on must not fill its pipes, or it would stop.
            for pipe in (process.stdout, process.stderr):
                threading.Thread(target=pipe.read, daemon=True).start()
            yield int(found[1])
        finally:
            too_late.cancel()
            process.terminate()


def served(lab, target: str, port: int = 443) -> Description:
    """What the certificate says that a pod serves at this moment; see `served_pem`."""
    return describe(served_pem(lab, target, port))


def served_pem(lab, target: str, port: int = 443) -> bytes:
    """The certificate that a pod serves at this moment, from a handshake with it.

    Raises:
        LabError: if the pod can't be reached, or doesn't speak TLS there.
    """
    with forwarded(lab, target, port) as local:
        return _handshake(local).encode()


def clients(lab, ca: str | Path, name: str = "my-nginx", target: str = "deployment/my-nginx"):
    """Ask a server over TLS with three clients, all of which trust `ca` and expect `name`, and collect their verdicts.

    curl stands for the old habit (no subjectAltName: fall back to the subject's CN), kubectl for everything written in Go, and
    Python's ssl, told to do as RFC 9525 says, for browsers and Python's own HTTP libraries.

    Args:
        lab: what `connect()` gave.
        ca: the file of the certificate to trust.
        name: the name in the URL.
        target: which pod to ask, as `kubectl port-forward` takes it.

    Returns:
        Verdicts: by client, "accepts it" or "refuses: " and its own words.
    """
    verdicts = Verdicts()
    for client, ask in (("curl", _curl_verdict), ("kubectl (Go)", _kubectl_verdict), ("Python (RFC 9525)", _python_verdict)):
        # Each by a way of its own: kubectl ends a forwarding after a connection that was reset, as one may be that a client refuses.
        with forwarded(lab, target, 443) as local:
            verdicts[client] = ask(local, ca, name)
    return verdicts


class Verdicts(dict):
    """What each client says, by its name; shown one to a line, with nothing cut off."""

    def __repr__(self) -> str:
        return "\n".join(f"{client:<18} {verdict}" for client, verdict in self.items())

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(c)}</th><td style='text-align: left'>{escape(v)}</td></tr>" for c, v in self.items())
        return f"<table><tr><th>client</th><th style='text-align: left'>verdict</th></tr>{rows}</table>"


def rotate(lab, pair: KeyPair, *, secret: str = "nginxsecret") -> None:
    """Put another certificate into the Secret, wait until the pods' files have followed, and have nginx read them.

    The steps are those of lesson 05, where each is done by hand first: replace the Secret, touch the pods so that their kubelets
    look at once rather than within their sync period, wait for the files, `nginx -s reload`. No pod is replaced.

    Args:
        lab: what `connect()` gave.
        pair: the new certificate and key.
        secret: the Secret to write; it is made if it isn't there.

    Raises:
        TimeoutError: if the files did not follow in time.
    """
    # Replaced as a whole: what `kubectl create secret` has made carries no record that `apply` could compare with.
    verb = "replace" if any(item["metadata"]["name"] == secret for item in lab.list("secrets")) else "create"
    lab.kubectl(verb, "--filename", "-", input=json.dumps(pair.secret(secret)))
    for selector in (SERVERS, CLIENTS):
        for pod in hasten(lab, selector):
            wait_for_file(lab, pod, pair.certificate)
            if selector == SERVERS:
                lab.kubectl("exec", pod, "--", "nginx", "-s", "reload")
    wait_until_served(lab, pair.certificate)


def hasten(lab, selector: str) -> list[str]:
    """Change an annotation of pods: their kubelets sync them now, and with them the files of mounted Secrets and ConfigMaps.

    Returns:
        The names of the pods, without those that are on their way out.
    """
    pods = [pod["metadata"]["name"] for pod in lab.list("pods", selector) if not pod["metadata"].get("deletionTimestamp")]
    if pods:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        lab.kubectl("annotate", "pods", *pods, "--overwrite", f"looked-at={now}")
    return pods


def wait_until_served(lab, certificate: bytes) -> None:
    """Wait until every server serves this certificate: a reloaded nginx takes a moment, while the old workers finish.

    Raises:
        WaitTimeout: one of them doesn't; says which.
    """
    wanted = describe(certificate).fingerprint

    def every_server_serves_it() -> bool:
        for pod in lab.list("pods", SERVERS):
            if pod["metadata"].get("deletionTimestamp"):
                continue
            name = pod["metadata"]["name"]
            try:
                steady = _serves_only(lab, f"pod/{name}", wanted)
            except LabError as error:  # it may have gone just now, or a tunnel of kubectl's has broken
                raise NotYet(f"pod {name} can't be asked: {error}") from error
            if not steady:
                raise NotYet(f"pod {name} serves another certificate")
        return True

    lab.wait_for(every_server_serves_it)


def _serves_only(lab, target: str, fingerprint: str) -> bool:
    """Whether a pod serves this certificate in every handshake for `STEADY_SECONDS`."""
    with forwarded(lab, target, 443) as local:
        end = time.monotonic() + STEADY_SECONDS
        while describe(_handshake(local)).fingerprint == fingerprint:
            if time.monotonic() > end:
                return True
            time.sleep(0.02)
        return False


def wait_for_file(lab, pod: str, content: bytes, path: str = CERTIFICATE_IN_POD) -> None:
    """Wait until a file in a pod has this content.

    Raises:
        TimeoutError: it hasn't within `PATIENCE_WITH_VOLUMES` seconds.
    """
    # One command that loops in the pod: nothing can be watched there, and one exec costs less than many.
    wanted = content.decode().strip()
    loop = 'i=0; while [ "$(cat "$0")" != "$1" ]; do i=$((i+1)); [ $i -gt "$2" ] && exit 9; sleep 0.2; done'
    command = ["sh", "-c", loop, path, wanted, str(PATIENCE_WITH_VOLUMES * 5)]
    try:
        lab.run_in_pod(pod, command, timeout=PATIENCE_WITH_VOLUMES + 30, check=True)
    except Exception as error:
        raise TimeoutError(
            f"{path} in pod {pod} did not follow its Secret in {PATIENCE_WITH_VOLUMES} s ({error}). "
            f"Look at the pod's events: kubectl describe pod {pod}"
        ) from error


def _handshake(port: int) -> str:
    """The server's certificate, unverified: it is to be looked at, not trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=15) as raw, context.wrap_socket(raw) as secured:
            return ssl.DER_cert_to_PEM_cert(secured.getpeercert(binary_form=True))
    except OSError as error:
        raise LabError(f"the pod did not answer with TLS: {error}") from error


def _curl_verdict(port: int, ca: str | Path, name: str) -> str:
    url = f"https://{name}:{port}"
    command = ["curl", "-sS", "-o", "/dev/null", "--cacert", str(ca), "--resolve", f"{name}:{port}:127.0.0.1", "--max-time", "15", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "accepts it" if done.returncode == 0 else _refusal(done.stderr.splitlines()[0].split(") ", 1)[-1])


def _kubectl_verdict(port: int, ca: str | Path, name: str) -> str:
    # A kubeconfig of its own with a made-up token: nothing of the learner's credentials goes to a server that is not the API server.
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as empty:
        server = [f"--server=https://localhost:{port}", f"--certificate-authority={ca}", f"--tls-server-name={name}"]
        command = ["kubectl", f"--kubeconfig={empty.name}", "--token=none", *server, "get", "--raw", "/"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = done.stderr.strip()
    if "x509: " in said:
        return _refusal(said.split("x509: ", 1)[1].splitlines()[0])
    return "accepts it" + (f" ({said})" if done.returncode else "")


def _python_verdict(port: int, ca: str | Path, name: str) -> str:
    context = ssl.create_default_context(cafile=str(ca))
    context.hostname_checks_common_name = False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=15) as raw, context.wrap_socket(raw, server_hostname=name):
            return "accepts it"
    except ssl.SSLCertVerificationError as error:
        return _refusal(error.verify_message.rstrip("."))


def _refusal(words: str) -> str:
    return f"refuses: {words.strip()}"
