"""``python -m pocketkube``: a cluster in the foreground, until it is told to stop.

Three processes, so that whatever ends any of them, by whatever signal, ends everything::

    launcher   in the user's own namespaces: holds the lock, waits, hands signals on
      └─ init      PID 1 of a new PID namespace: reaps; when it dies, the kernel kills all the rest
           └─ cluster   everything else: API server, controllers, kubelets, DNS
                └─ containers …

The listening sockets are bound on 127.0.0.1 in the user's network before the new namespaces are entered, and
inherited: a socket belongs to the network it was made in. That is the only way in or out.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from pocketkube import namespaces as ns

CAP_SYS_ADMIN = 21
STARTUP_FAILED = 1
USAGE = 2
ALREADY_RUNNING = 3


class StartError(Exception):
    """The cluster can't start; the text says why and what to do."""

    def __init__(self, message: str, status: int = STARTUP_FAILED):
        super().__init__(message)
        self.status = status


class Progress:
    """Tells whoever started us how far we are: lines of JSON on a file descriptor, if one was given.

    ``{"phase": "…"}`` for each step, then ``{"ready": {…}}`` or ``{"error": "…"}``.
    """

    def __init__(self, fd: int | None):
        self._fd = fd

    def tell(self, **message) -> None:
        """Write one line. A reader who has gone away is no error."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            self._fd = None

    def close(self) -> None:
        """No more lines."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def main(argv: list[str] | None = None) -> int:
    """Run a cluster. Returns the exit status: 0 stopped as asked, 1 failed, 2 bad usage, 3 already running."""
    options = _parse(argv)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if options.ready_fd is not None:
        os.set_inheritable(options.ready_fd, False)
    progress = Progress(options.ready_fd)
    try:
        _prepare_state(options.state)
        lock = _lock(options.state)
        sockets = _bind(options)
        return _launch(options, sockets, lock, progress)
    except StartError as error:
        progress.tell(error=str(error), status=error.status)
        print(f"pocketkube: {error}", file=sys.stderr)
        return error.status


def _parse(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pocketkube",
        description="A Kubernetes cluster of three nodes in one process tree; it runs in the foreground until SIGTERM.",
    )
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="where the cluster keeps everything; made if missing")
    parser.add_argument("--name", default="servicelab", help="the cluster's name; its context is pocket-NAME (default: %(default)s)")
    parser.add_argument(
        "--api-port", type=_port, default=0, metavar="PORT", help="port of the API on 127.0.0.1; 0 (default): the last one, or any free one"
    )
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="HOST:NODE",
        help='relay 127.0.0.1:HOST to port NODE of the control plane node; "auto:NODE" takes NODE if it is free, else another port',
    )
    parser.add_argument("--ready-fd", type=int, help="write progress as lines of JSON to this file descriptor")
    parser.add_argument("--follow", type=int, metavar="PID", help="stop when this process has ended (a test run that was killed)")
    parser.add_argument("--verbose", action="store_true", help="log every step")
    options = parser.parse_args(argv)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,48}[a-z0-9])?", options.name):
        parser.error(f'the name "{options.name}" must be lower case letters, digits, "-" and ".", at most 50, as for kind')
    try:
        options.publish = [_publication(text) for text in options.publish]
    except ValueError as error:
        parser.error(f"--publish: {error}")
    options.state = Path(os.path.abspath(options.state.expanduser()))
    return options


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port: use 0 to 65535")
    return port


def _publication(text: str) -> tuple[int | None, int]:
    host, colon, node = text.partition(":")
    if not colon or not node.isdigit() or not (host.isdigit() or host == "auto"):
        raise ValueError(f'"{text}" is not HOSTPORT:NODEPORT, such as 30080:30080 or auto:30080')
    if not (0 < int(node) <= 65535 and (host == "auto" or int(host) <= 65535)):
        raise ValueError(f'"{text}": ports are 1 to 65535')
    return (None if host == "auto" else int(host)), int(node)


def _prepare_state(state: Path) -> None:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        probe = state / f".probe.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise StartError(
            f"the state directory {state} can't be written: {error.strerror}. Make it writable, or choose another with SERVICELAB_STATE."
        ) from error


def _lock(state: Path) -> int:
    """Hold the state directory for ourselves: two clusters on one database would each undo the other's work."""
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
        process = f" (process {owner})" if owner else ""
        raise StartError(f"a cluster is running already in {state}{process}. Use that one, or stop it first.", ALREADY_RUNNING) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _bind(options) -> dict:
    """The listening sockets, by purpose: ``{"api": socket, "published": [(socket, node port), …]}``."""
    remembered = 0
    if not options.api_port:
        try:
            remembered = int((options.state / "api-port").read_text())
        except (OSError, ValueError):
            pass  # first start, or nothing useful in it: any free port will do
    api = _listen(remembered, fallback=True) if remembered else _listen(options.api_port, fallback=False)
    published = []
    for host, node in options.publish:
        sock = _listen_near(node) if host is None else _listen(host, fallback=False)
        published.append((sock, node))
        if host is None and sock.getsockname()[1] != node:
            print(f"port {node} of 127.0.0.1 is in use: node port {node} is at {sock.getsockname()[1]} instead", file=sys.stderr)
    return {"api": api, "published": published}


def _listen_near(port: int) -> socket.socket:
    """At ``port``, or at the next one that is free, which still looks like a node port (30000 to 32767)."""
    for near in range(port, min(port + 100, 32768)):
        try:
            return _listen(near, fallback=False)
        except StartError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                raise
    return _listen(port, fallback=True)


def _listen(port: int, *, fallback: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen(256)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE and fallback:
            return _listen(0, fallback=False)
        what = {errno.EADDRINUSE: "is in use by another program", errno.EACCES: "is reserved for root"}.get(error.errno, error.strerror)
        raise StartError(f"port {port} of 127.0.0.1 {what}: free it (`ss -ltnp` shows who has it), or choose another.") from error
    sock.setblocking(False)
    return sock


# -- processes and namespaces -----------------------------------------------------------------------------


def _launch(options, sockets, lock: int, progress: Progress) -> int:
    """The launcher: make the namespaces that a process can only make for its children, start init, wait."""
    rootless = os.geteuid() != 0 or not _has_sys_admin()
    if rootless:
        _enter_user_namespace()
    try:
        ns.unshare(ns.CLONE_NEWPID)
    except OSError as error:
        raise StartError(_refused(error, rootless)) from error
    alive_read, alive_write = os.pipe2(os.O_CLOEXEC)
    failure_read, failure_write = os.pipe2(os.O_CLOEXEC)
    parent_signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
    init = os.fork()
    if init == 0:
        os.close(alive_write)
        os.close(failure_read)
        signal.pthread_sigmask(signal.SIG_SETMASK, parent_signals)
        os._exit(_init(options, sockets, alive_read, failure_write, rootless, progress))
    os.close(alive_read)
    os.close(failure_write)
    for sock in (sockets["api"], *(sock for sock, _ in sockets["published"])):
        sock.close()
    progress.close()
    status = _wait(init, options.follow, parent_signals)
    (options.state / "ready.json").unlink(missing_ok=True)
    os.close(lock)
    message = os.read(failure_read, 65536).decode()
    if message:
        print(f"pocketkube: {message}", file=sys.stderr)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _wait(init: int, owner: int | None, old_mask) -> int:
    """Wait for init to end, handing on signals; stop it when process ``owner`` ends. Returns init's wait status."""
    wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # what arrives is read from the pipe
    signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    watched = [wake]
    if owner:
        try:
            watched.append(os.pidfd_open(owner))
        except ProcessLookupError:
            os.kill(init, signal.SIGTERM)  # it has ended already
    while True:
        ready, _, _ = select.select(watched, [], [])
        if wake in ready and any(number != signal.SIGCHLD for number in os.read(wake, 4096)):
            os.kill(init, signal.SIGTERM)
        if len(ready) > 1 or wake not in ready:
            os.kill(init, signal.SIGTERM)
            watched = [wake]
        pid, status = os.waitpid(init, os.WNOHANG)
        if pid == init:
            return status


def _init(options, sockets, alive: int, failure: int, rootless: bool, progress: Progress) -> int:
    """PID 1: private mounts, then the cluster as a child; reap whatever is orphaned; end when the cluster ends."""
    ns.die_with_parent(signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        return STARTUP_FAILED  # the launcher died before the line above: nobody would ever stop us
    try:
        ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS)
        _private_mounts(options.state)
        ns.sethostname("outside")
    except OSError as error:
        message = _refused(error, rootless)
        progress.tell(error=message)
        os.write(failure, message.encode())
        return STARTUP_FAILED
    os.setsid()
    wanted = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    cluster = os.fork()
    if cluster == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        os._exit(_cluster(options, sockets, failure, progress))
    os.close(failure)
    for sock in (sockets["api"], *(sock for sock, _ in sockets["published"])):
        sock.close()
    progress.close()
    while True:
        number = signal.sigwait(wanted)
        if number != signal.SIGCHLD:
            os.kill(cluster, signal.SIGTERM)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == cluster:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _cluster(options, sockets, failure: int, progress: Progress) -> int:
    """The cluster process itself; the expensive imports happen here only."""
    import asyncio
    import logging

    ns.die_with_parent(signal.SIGKILL)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for library in ("pyroute2", "asyncio", "aiohttp"):  # what --verbose is about is our own steps
        logging.getLogger(library).setLevel(logging.WARNING)
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        # What newer Pythons do by themselves: no thread for each child process.
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    from pocketkube.lightimport import make_light

    for package in ("aiohttp", "pyroute2"):
        make_light(package)
    from pocketkube.cluster import Cluster, ClusterError

    async def run() -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        cluster = Cluster(
            options.state,
            options.name,
            api_socket=sockets["api"],
            published=sockets["published"],
            on_stop=stopping.set,
            launcher=_launcher_pid(options.state),
        )
        try:
            await cluster.start(lambda phase: progress.tell(phase=phase))
            ready = cluster.status()
            progress.tell(ready=ready)
            progress.close()
            print(f"cluster {options.name} is ready: {ready['server']}  (KUBECONFIG={ready['kubeconfig']})", flush=True)
            await stopping.wait()
        finally:
            await cluster.stop()

    try:
        asyncio.run(run())
    except ClusterError as error:
        progress.tell(error=str(error))
        os.write(failure, str(error).encode())
        return STARTUP_FAILED
    except Exception as error:
        logging.exception("the cluster failed")
        progress.tell(error=f"{type(error).__name__}: {error}")
        return STARTUP_FAILED
    return 0


def _launcher_pid(state: Path) -> int:
    return int((state / "lock").read_text())


def _private_mounts(state: Path) -> None:
    """A /proc of our own, and an empty /run where namespaces are kept; nothing mounted from here on shows outside."""
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    # An ordinary user can't make /run/netns on the machine's /run, so /run is replaced as a whole. What we need of it
    # (a state directory or a virtual environment may be below /run/user) is brought along.
    kept = {}
    for path in {str(state), sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parent.parent)}:
        real = os.path.realpath(path)
        if real == "/run" or real.startswith("/run/"):
            kept[real] = os.open(real, os.O_PATH | os.O_CLOEXEC)
    ns.mount("tmpfs", "/run", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755,size=64m")
    for real, fd in kept.items():
        os.makedirs(real, exist_ok=True)
        ns.mount(f"/proc/self/fd/{fd}", real, flags=ns.MS_BIND | ns.MS_REC)
        os.close(fd)


def _has_sys_admin() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return False


def _enter_user_namespace() -> None:
    """Become root of a user namespace: all our subordinate ids where newuidmap is set up, else our own id alone."""
    uid, gid, pid = os.geteuid(), os.getegid(), os.getpid()
    ranges = _subordinate_ids(uid)
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    helper = None
    if ranges:
        helper = os.fork()
        if helper == 0:  # newuidmap must be called from the old user namespace
            os.close(ready_write)
            os.read(ready_read, 1)
            failed = False
            for program, own, (first, count) in (("newuidmap", uid, ranges[0]), ("newgidmap", gid, ranges[1])):
                command = [program, str(pid), "0", str(own), "1", "1", str(first), str(count)]
                failed |= subprocess.run(command, check=False).returncode != 0
            os._exit(failed)
    try:
        ns.unshare(ns.CLONE_NEWUSER)
    except OSError as error:
        raise StartError(_refused(error, True)) from error
    finally:
        os.close(ready_write)
        os.close(ready_read)
    if helper is not None and os.waitpid(helper, 0)[1] == 0:
        return
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise StartError(_refused(error, True)) from error


def _subordinate_ids(uid: int) -> list[tuple[int, int]] | None:
    """The first range of subordinate user ids and of group ids (subuid(5)), or ``None`` where the user has none."""
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    import pwd

    names = {str(uid)}
    try:
        names.add(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass  # a user without an entry has no name to look for
    found = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            entries = [line.split(":") for line in Path(path).read_text().split()]
        except OSError:
            return None
        mine = [(int(first), min(int(count), 65535)) for name, first, count in entries if name in names]
        if not mine:
            return None
        found.append(mine[0])
    return found


def _refused(error: OSError, rootless: bool) -> str:
    """Why the kernel refused a namespace, and the setting that allows it."""
    if not rootless:
        return f"the kernel refused: {error}. In a container, run it with --privileged; see `servicelab doctor`."
    hints = []
    for setting, forbids, allows in (
        ("kernel.unprivileged_userns_clone", 0, 1),
        ("user.max_user_namespaces", 0, 15000),
        ("kernel.apparmor_restrict_unprivileged_userns", 1, 0),
    ):
        try:
            value = int(Path("/proc/sys", *setting.split(".")).read_text())
        except (OSError, ValueError):
            continue  # this kernel doesn't have the setting
        if value == forbids:
            hints.append(f"sudo sysctl -w {setting}={allows}")
    if not hints:
        hints.append("in a container, run it with --privileged, or as root")
    return f"this kernel does not let an ordinary user make namespaces ({error}). To allow it: {'; '.join(hints)}"


if __name__ == "__main__":
    sys.exit(main())
