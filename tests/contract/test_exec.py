"""kubectl exec, attach, run, cp and port-forward. The same on pocket and kind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import urllib.request

import pytest
from kubernetes import client, config
from kubernetes.stream import portforward, stream
from test_pods_run import CURL, NGINX, pod, sh, unique

from harness import WAIT, Kube
from servicelab import kubectl as kubectl_of_lab


@pytest.fixture(scope="module")
def web(kube: Kube) -> str:
    # ready only when nginx listens: port-forwarding meets it at once
    listens = {"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}}
    kube.apply(pod("web", listens, {"image": CURL, "command": ["sleep", "10000"]}, labels={"app": "web"}))
    kube.wait("condition=Ready", "pod/web")
    return "web"


def test_streams_and_exit_codes(kube: Kube, web: str):
    done = kube.kubectl("exec", web, "-c", "c", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.returncode) == ("out\n", 7)
    assert done.stderr == "err\ncommand terminated with exit code 7\n"
    killed = kube.kubectl("exec", web, "-c", "c", "--", "sh", "-c", "kill -9 $$", check=False)
    assert killed.returncode == 137


def test_input_until_its_end(kube: Kube, web: str):
    text = "".join(f"line {n}\n" for n in range(20000))
    assert kube.kubectl("exec", "-i", web, "-c", "c", "--", "cat", input=text).stdout == text


def test_much_output(kube: Kube, web: str):
    out = kube.kubectl("exec", web, "-c", "c", "--", "sh", "-c", "seq 1 300000", timeout=60).stdout
    assert out.splitlines()[-1] == "300000" and len(out.splitlines()) == 300000


def test_user_directory_and_environment(kube: Kube, web: str):
    assert kube.exec(web, "sh", "-c", "id -un; pwd; echo $HOME", container="c1") == "curl_user\n/home/curl_user\n/home/curl_user\n"
    assert kube.exec(web, "sh", "-c", "id -un; pwd; echo $HOME", container="c") == "root\n/\n/root\n"


def test_what_cannot_be_run(kube: Kube, web: str):
    expected = (
        "error: Internal error occurred: Internal error occurred: error executing command in container: failed to exec in container: "
        'failed to start exec "[0-9a-f]{64}": OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": '
        r"executable file not found in \$PATH: unknown\n"
    )

    def missing() -> bool:
        done = kube.kubectl("exec", web, "-c", "c", "--", "nosuch", check=False)
        assert done.returncode == 1 and re.fullmatch(expected, done.stderr), done.stderr
        return True

    kube.wait(missing)
    # asked again where kubectl before 1.33 lost the answer ("Unknown stream id"), which comes at once here
    denied = 'exec: "/etc": permission denied: unknown'
    kube.wait(lambda: denied in kube.kubectl("exec", web, "-c", "c", "--", "/etc", check=False).stderr)
    container = kube.kubectl("exec", web, "-c", "nope", "--", "true", check=False)
    assert "container nope is not valid for pod web" in container.stderr  # newer kubectls look themselves, and say which there are
    absent = kube.kubectl("exec", "nosuchpod", "--", "true", check=False)
    assert absent.returncode == 1 and 'pods "nosuchpod" not found' in absent.stderr


def test_not_running(kube: Kube):
    over, waiting = unique("over"), unique("waiting")
    kube.apply([pod(over, sh("true"), restartPolicy="Never"), pod(waiting, {"image": "nosuch/image:1"})])
    kube.wait("jsonpath={.status.phase}=Succeeded", f"pod/{over}")
    done = kube.kubectl("exec", over, "--", "true", check=False)
    assert done.stderr == "error: cannot exec into a container in a completed pod; current phase is Succeeded\n"
    kube.wait(lambda: kube.get("pod", waiting)["status"].get("containerStatuses"))
    done = kube.kubectl("exec", waiting, "--", "true", check=False)
    assert done.stderr == 'error: Internal error occurred: unable to upgrade connection: container not found ("c")\n'


def test_targets_by_owner(kube: Kube, web: str):
    kube.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    )
    assert kube.kubectl("exec", "service/web", "-c", "c", "--", "hostname").stdout == "web\n"


class Terminal:
    """kubectl with a real terminal."""

    def __init__(self, kube: Kube, *args: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        command = [kubectl_of_lab.find(), f"--kubeconfig={kube.kubeconfig}", "-n", kube.name, *args]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.seen = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def expect(self, words: bytes, timeout: float = WAIT, nudge: bytes = b"") -> None:
        """Read until ``words`` come; in a silence type ``nudge``, once a second."""
        deadline = time.monotonic() + timeout
        while words not in self.seen:
            assert time.monotonic() < deadline, f"{words!r} is not in {self.seen!r}"
            if select.select([self.master], [], [], 1)[0]:
                self.seen += os.read(self.master, 65536)
            else:
                self.type(nudge)
        self.seen = self.seen.split(words, 1)[1]

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)


def test_terminal(kube: Kube, web: str):
    """kubectl exec -it: size, control characters, exit code."""
    with Terminal(kube, "exec", "-it", web, "-c", "c", "--", "sh") as terminal:
        terminal.expect(b"# ")
        terminal.type(b"tty; echo $((6*7)); test -t 0 && echo isa''tty\n")
        terminal.expect(b"/dev/pts/0")
        terminal.expect(b"42")
        terminal.expect(b"isatty")
        # the size comes on a stream of its own, a moment later
        terminal.type(b"until stty size | grep '33 1''11'; do sleep 0.1; done\n")
        terminal.expect(b"33 111")
        terminal.type(b"sh -c 'echo going; sleep 1000; echo n''ot'\n")
        terminal.expect(b"going\r\n")
        terminal.type(b"\x03")
        terminal.type(b"echo af''ter\n")
        terminal.expect(b"after")
        assert b"not" not in terminal.seen
        terminal.type(b"exit 5\n")
        assert terminal.process.wait(WAIT) == 5


def test_run_with_a_terminal(kube: Kube):
    """kubectl run -it: the terminal of the container's first process."""
    name = unique("term")
    with Terminal(kube, "run", name, "-it", "--rm", "--restart=Never", f"--image={CURL}", "--", "sh") as terminal:
        # a prompt from before we were attached is not shown again: "If you don't see a command prompt, try pressing enter."
        terminal.expect(b"$ ", nudge=b"\n")
        terminal.type(b"echo $((6*7)); test -t 0 && echo isa''tty\n")
        terminal.expect(b"42")
        terminal.expect(b"isatty")
        terminal.type(b"sh -c 'echo going; sleep 1000'\n")
        terminal.expect(b"going\r\n")
        terminal.type(b"\x03")
        terminal.type(b"exit 6\n")
        terminal.expect(f'pod "{name}" deleted'.encode())
        assert terminal.process.wait(WAIT) == 6


def test_python_clients(kube: Kube, web: str):
    """The official Python client: exec with its exit code, and its way of port forwarding."""
    api = client.CoreV1Api(config.new_client_from_config(str(kube.kubeconfig)))
    command = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    session = stream(
        api.connect_get_namespaced_pod_exec,
        web,
        kube.name,
        container="c",
        command=command,
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
        _preload_content=False,
    )
    session.run_forever(timeout=WAIT)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("out\n", "err\n", 3)
    forward = portforward(api.connect_get_namespaced_pod_portforward, web, kube.name, ports="80")
    sock = forward.socket(80)
    sock.settimeout(WAIT)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while chunk := sock.recv(65536):
        answer += chunk
    sock.close()
    assert b"Welcome to nginx!" in answer and forward.error(80) is None


def test_run_and_remove(kube: Kube):
    done = kube.kubectl(
        "run",
        unique("once"),
        "-i",
        "--rm",
        "--restart=Never",
        f"--image={NGINX}",
        "--command",
        "--",
        "cat",
        input="from here\n",
        timeout=2 * WAIT,
    )
    assert "from here\n" in done.stdout
    failed = kube.kubectl(
        "run",
        unique("fails"),
        "-i",
        "--rm",
        "--restart=Never",
        f"--image={NGINX}",
        "--command",
        "--",
        "sh",
        "-c",
        "sleep 1; exit 3",
        check=False,
        timeout=2 * WAIT,
    )
    assert failed.returncode == 3


def test_attach_to_a_running_container(kube: Kube):
    name = unique("attach")
    kube.apply(pod(name, sh("while read line; do echo got $line; done; sleep 1000", stdin=True)))
    kube.wait("condition=Ready", f"pod/{name}")
    process = kube.popen("attach", "-i", name, stdin=subprocess.PIPE)
    try:
        process.stdin.write("hello\n")
        process.stdin.flush()
        kube.wait(lambda: "got hello" in kube.kubectl("logs", name).stdout)
        assert "got hello" in process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def test_copy_there_and_back(kube: Kube, web: str, tmp_path):
    source = tmp_path / "there"
    source.write_bytes(os.urandom(200_000))
    kube.kubectl("cp", str(source), f"{web}:/tmp/file", "-c", "c")
    kube.kubectl("cp", f"{web}:/tmp/file", str(tmp_path / "back"), "-c", "c")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_port_forward(kube: Kube, web: str):
    process = kube.popen("port-forward", "--address=127.0.0.1", web, ":80", ":81")
    try:
        ports = [int(re.search(r"127\.0\.0\.1:(\d+) -> ", process.stdout.readline())[1]) for _ in range(2)]
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/", timeout=WAIT) as answer:
                assert b"Welcome to nginx!" in answer.read()
        with pytest.raises(OSError):  # kubectl says why before it closes the connection
            urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/", timeout=WAIT)
        process.terminate()
        errors = process.communicate(timeout=WAIT)[1]
        assert "an error occurred forwarding" in errors.lower() and "connect: connection refused" in errors
    finally:
        process.kill()
        process.wait()


def test_port_forward_to_a_pod_that_does_not_run(kube: Kube):
    name = unique("fwd")
    kube.apply(pod(name, {"image": "nosuch/image:1"}))
    kube.wait(lambda: kube.get("pod", name)["status"].get("containerStatuses"))
    done = kube.kubectl("port-forward", name, ":80", check=False)
    assert done.returncode == 1 and "unable to forward port because pod is not running. Current status=Pending" in done.stderr
