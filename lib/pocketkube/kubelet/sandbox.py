"""What a container runtime does: pod sandboxes and containers, as namespaces and ``bwrap`` processes.

A pod's sandbox is a network namespace (made by `pocketkube.network`), a UTS and an IPC namespace, ``/dev/shm`` and the
files ``hosts``, ``hostname`` and ``resolv.conf``: what its containers share. Each container has mount and PID namespaces
of its own, a root file system that is an overlay of its image and a writable layer, and an environment that holds
what the pod says and nothing else. No path of the machine is in it beyond the image, so neither are the user's files.

Privileges are those that Docker and containerd give by default. As an ordinary user without a range of sub-ids only
one user id exists; there, containers of every user run as that one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import namespaces
from ..images import PATH, Image, mapped_ids
from . import syscalls
from .process import PipeReader, Process

# The default capabilities of Docker and containerd.
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
)
_HELPER_ENV = {"PATH": PATH, "LC_ALL": "C"}


_RUNC = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)


class StartError(Exception):
    """A container whose process could not be started; the text is the runtime's, as the kubelet would report it."""


def _tool(name: str) -> str:
    found = shutil.which(name, path=PATH + os.pathsep + os.environ.get("PATH", ""))
    if not found:
        raise FileNotFoundError(f"{name} is not on this machine; `./lab` installs it (or your package manager does)")
    return found


@dataclass
class User:
    """Whom a process runs as."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


@dataclass
class Mount:
    """A bind mount into a container."""

    source: str
    target: str
    read_only: bool = False


@dataclass
class ContainerConfig:
    """All that is needed to start one container."""

    name: str
    image: Image
    argv: list[str]
    environment: dict[str, str]
    directory: str
    user: User
    mounts: list[Mount] = field(default_factory=list)
    read_only_root: bool = False
    stdin: bool = False
    tty: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()

    def mounts_over(self, command: str) -> bool:
        """Whether a command may be in a volume rather than in the image."""
        if "/" in command and not command.startswith("/"):
            return True
        places = [command] if "/" in command else self.environment.get("PATH", PATH).split(":")
        return any(f"{place}/".startswith(f"{mount.target.rstrip('/')}/") for place in places for mount in self.mounts)


class PodSandbox:
    """The part of a pod that its containers share.

    Args:
        directory: a directory for this pod, in a file system that supports overlay upper layers (a tmpfs).
        netns: path of the pod's network namespace (the node's, for hostNetwork).
    """

    def __init__(self, directory: Path, netns: str, hostname: str) -> None:
        self.directory = directory
        self.netns = netns
        self.hostname = hostname
        self.uts = directory / "uts"
        self.ipc = directory / "ipc"
        self.shm = directory / "shm"

    def create(self, *, hosts: str, resolv: str, sysctls: dict[str, str]) -> None:
        """Makes the namespaces and files."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        self.shm.mkdir()
        self.shm.chmod(0o1777)
        namespaces.create(self.uts, namespaces.CLONE_NEWUTS, prepare=lambda: namespaces.sethostname(self.hostname))
        namespaces.create(self.ipc, namespaces.CLONE_NEWIPC)
        for name, text in (("hosts", hosts), ("hostname", self.hostname + "\n"), ("resolv.conf", resolv)):
            path = self.directory / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
        if sysctls:
            with namespaces.entered(self.netns):
                syscalls.set_sysctls(sysctls)

    def remove(self) -> None:
        """Undoes ``create``; the containers must have ended."""
        for path in (self.uts, self.ipc):
            syscalls.unmount(str(path))
        shutil.rmtree(self.directory, ignore_errors=True)


class Container:
    """One running (or ended) container process."""

    def __init__(self, sandbox: PodSandbox, config: ContainerConfig, identity: str) -> None:
        self.sandbox = sandbox
        self.config = config
        self.id = identity
        self.directory = sandbox.directory / identity
        self.root = self.directory / "root"
        self.termination_log = self.directory / "termination-log"
        self.pid = 0  # of the container's init, in the kubelet's PID namespace
        self.started_at = 0.0
        self.finished_at = 0.0
        self.exit_code: int | None = None
        self.process: Process | None = None
        self.ended = asyncio.Event()
        self.stdin_fd: int | None = None
        self.terminal: int | None = None  # the master side, for tty: true
        self._readers: list[PipeReader] = []
        self._early_stderr = bytearray()
        self.listeners: set[Callable[[str, bytes], None]] = set()  # who is attached
        self.was_attached = False
        self.written: list[tuple[str, bytes]] = []  # its output so far, for the first who attaches

    # ------------------------------------------------------------------------------------------------------ start

    async def start(self, output: Callable[[str, bytes], None]) -> None:
        """Starts it; ``output("stdout"|"stderr", data)`` gets what it writes.

        Raises:
            StartError: when its program isn't there or can't be run.
        """
        config = self.config
        self._mount_root()
        if config.tty and not config.mounts_over(config.argv[0]):
            # On a terminal the complaint of bwrap or setpriv can't be told from the program's own output.
            problem = self.program_problem(config.argv[0], self.root)
            if problem:
                self.ended.set()
                raise StartError(f"{_RUNC}{problem}: unknown")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        ours: list[int] = []
        theirs: list[int] = [null]

        def pipe() -> tuple[int, int]:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            return read_end, write_end

        def observe_stderr(data: bytes) -> None:
            if not self.pid_ready and len(self._early_stderr) < 4096:
                self._early_stderr.extend(data)
            else:
                output("stderr", data)

        self.pid_ready = False
        status_read, status_write = pipe()
        theirs.append(status_write)
        try:
            if config.tty:
                master, slave = os.openpty()
                os.set_inheritable(master, False)
                ours.append(master)
                theirs.append(slave)
                self.own(slave)
                streams = (slave, slave, slave)
                self.terminal = master
                self.stdin_fd = os.dup(master) if config.stdin else None
                if self.stdin_fd is not None:
                    os.set_blocking(self.stdin_fd, False)
            else:
                stdin = null
                if config.stdin:
                    stdin, self.stdin_fd = pipe()
                    os.set_blocking(self.stdin_fd, False)
                    theirs.append(stdin)
                out_read, out_write = pipe()
                err_read, err_write = pipe()
                ours += [out_read, err_read]
                theirs += [out_write, err_write]
                self.own(out_write)
                self.own(err_write)
                streams = (stdin, out_write, err_write)
            args = os.memfd_create("bwrap-arguments")
            theirs.append(args)
            os.write(args, b"".join(os.fsencode(a) + b"\0" for a in self._bwrap_options(status_write)))
            os.lseek(args, 0, os.SEEK_SET)
            argv = [
                _tool("nsenter"),
                f"--net={self.sandbox.netns}",
                f"--uts={self.sandbox.uts}",
                f"--ipc={self.sandbox.ipc}",
                "--",
                _tool("bwrap"),
                "--args",
                str(args),
                "--",
                *self._command(),
            ]
            self.process = Process.start(
                argv,
                env=_HELPER_ENV,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                pass_fds=(args, status_write),
                new_session=True,
            )
        except OSError:
            for fd in (*ours, status_read):
                os.close(fd)
            raise
        finally:
            for fd in dict.fromkeys(theirs):
                os.close(fd)
        if config.tty:
            self._readers = [PipeReader(self.terminal, lambda data: output("stdout", data))]
        else:
            self._readers = [PipeReader(ours[0], lambda data: output("stdout", data)), PipeReader(ours[1], observe_stderr)]
        self._watch = asyncio.ensure_future(self._wait_for_end())
        await self._wait_for_start(status_read)
        self.pid_ready = True
        if self._early_stderr:
            early = bytes(self._early_stderr)
            message = self._start_failure(early)
            if message:
                await self.ended.wait()
                raise StartError(message)
            output("stderr", early)

    def own(self, fd: int) -> None:
        """/dev/stdout of a container is openable by its user, as with every other runtime."""
        if self.config.user.uid and mapped_ids() > 1:
            os.fchown(fd, self.config.user.uid, self.config.user.gid)

    def _mount_root(self) -> None:
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for name in (self.directory, self.directory / "upper"):
            name.chmod(0o755)
        lower = ":".join(str(layer) for layer in reversed(self.config.image.layers))
        options = f"lowerdir={lower},upperdir={self.directory / 'upper'},workdir={self.directory / 'work'}"
        try:
            namespaces.mount("overlay", str(self.root), "overlay", 0, options)
        except OSError as first:
            try:  # in a user namespace the kernel wants overlay's marks in user.* attributes
                namespaces.mount("overlay", str(self.root), "overlay", 0, options + ",userxattr")
            except OSError:
                raise StartError(f"failed to create the container's file system (overlayfs needs Linux 5.11 or newer): {first}") from first
        self.termination_log.touch()
        self.termination_log.chmod(0o666)

    def _bwrap_options(self, status_fd: int) -> list[str]:
        config, sandbox = self.config, self.sandbox
        options = [
            "--unshare-pid",
            "--as-pid-1",
            "--die-with-parent",
            "--json-status-fd",
            str(status_fd),
            "--cap-drop",
            "ALL",
        ]
        for capability in sorted({*self._capabilities(), "SETUID", "SETGID", "SETPCAP"}):  # the last three are for setpriv, see _privileges
            options += ["--cap-add", f"CAP_{capability}"]
        options += ["--bind", str(self.root), "/"]
        if config.read_only_root:
            options += ["--remount-ro", "/"]
        options += ["--proc", "/proc", "--dev", "/dev", "--bind", str(sandbox.shm), "/dev/shm", "--mqueue", "/dev/mqueue"]
        mounted = {mount.target.rstrip("/") for mount in config.mounts}
        for source, target in (
            (self.termination_log, "/dev/termination-log"),
            (sandbox.directory / "hosts", "/etc/hosts"),
            (sandbox.directory / "hostname", "/etc/hostname"),
            (sandbox.directory / "resolv.conf", "/etc/resolv.conf"),
        ):
            if target not in mounted:
                options += ["--bind", str(source), target]
        for mount in sorted(config.mounts, key=lambda m: m.target.count("/")):
            options += ["--ro-bind" if mount.read_only else "--bind", mount.source, self._mount_target(mount)]
        options += ["--chdir", config.directory or "/", "--clearenv"]
        for key, value in config.environment.items():
            options += ["--setenv", key, value]
        return options

    def _mount_target(self, mount: Mount) -> str:
        """Makes the mount point, and the working directory, in the writable layer; follows the image's links (/var/run)."""
        target = resolve_in_root(self.root, mount.target)
        inside = self.root / target.lstrip("/")
        if os.path.isdir(mount.source):
            inside.mkdir(parents=True, exist_ok=True)
        elif not inside.exists():
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
        return target

    def _capabilities(self) -> list[str]:
        """What the container's own processes may have, as root; another user has none of them."""
        dropped = self.config.drop_capabilities
        wanted = [] if "ALL" in dropped else [c for c in CAPABILITIES if c not in dropped]
        return wanted + [c for c in self.config.add_capabilities if c != "ALL" and c not in wanted]

    def _privileges(self) -> list[str]:
        """The setpriv command, run in the container, by which a process gives up what it shouldn't have and becomes its user."""
        user = self.config.user
        argv = [
            "/usr/bin/setpriv",
            "--bounding-set",
            ",".join(["-all", *(f"+{c.lower()}" for c in self._capabilities())]),
            "--inh-caps=-all",
            "--no-new-privs",
        ]
        if mapped_ids() > 1:
            groups = ["--groups", ",".join(map(str, user.groups))] if user.groups else ["--clear-groups"]
            argv += ["--reuid", str(user.uid), "--regid", str(user.gid), *groups]
        return [*argv, "--"]

    def _command(self) -> list[str]:
        directory = resolve_in_root(self.root, self.config.directory or "/")
        (self.root / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
        # setsid -c gives a terminal's first process the terminal as its controlling one (job control, Ctrl-C).
        terminal = ["/bin/setsid", "-c"] if self.config.tty else []
        return [*terminal, *self._privileges(), *self.config.argv]

    async def _wait_for_start(self, status_read: int) -> None:
        """Waits until bwrap has set up the sandbox and become the container's program."""
        status = bytearray()
        reader = PipeReader(status_read, status.extend)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 30
        try:
            while not self.ended.is_set():
                line, newline, _ = bytes(status).partition(b"\n")
                if newline and not self.pid:
                    self.pid = json.loads(line)["child-pid"]
                if self.pid:
                    try:
                        program = os.readlink(f"/proc/{self.pid}/exe")
                    except FileNotFoundError:  # gone already, or a zombie
                        await self.ended.wait()
                        break
                    if os.path.basename(program) not in ("bwrap", "setpriv") or program in self.config.argv[:1]:
                        break
                if loop.time() > deadline:
                    raise StartError("the container's process did not start within 30 s")
                # The kernel has no event for "has called execve": look again soon, a few times.
                await asyncio.sleep(0.001)
        finally:
            self._readers.append(reader)  # bwrap writes the exit code to it, and would die of SIGPIPE if it were closed now
            self.started_at = time.time()

    def _start_failure(self, stderr: bytes) -> str | None:
        """bwrap's or setpriv's complaint about the command, in runc's words."""
        text = stderr.decode(errors="replace")
        if not text.startswith(("bwrap: ", "setpriv: ", "setsid: ")) or not (self.ended.is_set() or self.pid == 0 or "exec" in text):
            return None
        name = self.config.argv[0]
        quoted = json.dumps(name)
        if "No such file" in text and ("exec" in text or "setsid" in text):
            return _RUNC + (
                f"exec: {quoted}: stat {name}: no such file or directory: unknown"
                if "/" in name
                else f"exec: {quoted}: executable file not found in $PATH: unknown"
            )
        if "Permission denied" in text and ("exec" in text or "setsid" in text):
            return _RUNC + f"exec: {quoted}: permission denied: unknown"
        return _RUNC + f"{text.strip()}: unknown"

    async def _wait_for_end(self) -> None:
        code = await self.process.wait()
        self.finished_at = time.time()
        for reader in self._readers:  # all of its processes are gone with its PID namespace, so the pipes end now
            try:
                await asyncio.wait_for(reader.done.wait(), 2)
            except asyncio.TimeoutError:
                reader.close()
        self.close_stdin()
        self.exit_code = code
        self.ended.set()

    # -------------------------------------------------------------------------------------------------- while running

    def remember(self, stream: str, data: bytes) -> None:
        """Keeps what is written before anybody has attached; what is older than the last mebibyte is dropped."""
        self.written.append((stream, data))
        while sum(len(piece) for _, piece in self.written) > 1 << 20:
            self.written.pop(0)

    def close_stdin(self) -> None:
        """Ends the container's standard input."""
        if self.stdin_fd is not None:
            os.close(self.stdin_fd)
            self.stdin_fd = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and not self.ended.is_set() and self.pid != 0

    def signal(self, number: int) -> None:
        """Sends a signal to the container's first process."""
        if self.running:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    async def stop(self, grace: float, stop_signal: str = "SIGTERM") -> None:
        """The stop signal, then SIGKILL after ``grace`` seconds."""
        if grace > 0 and self.running:
            self.signal(getattr(signal, stop_signal, signal.SIGTERM))
            try:
                await asyncio.wait_for(self.ended.wait(), grace)
            except asyncio.TimeoutError:
                pass
        if not self.ended.is_set() and self.process is not None:
            if self.running:
                self.signal(signal.SIGKILL)
            else:
                self.process.signal(signal.SIGKILL)
            await self.ended.wait()

    def program_problem(self, name: str, root: Path | None = None) -> str | None:
        """Why a command can't be run in the container, in runc's words; None if it can.

        Args:
            root: where to look; by default what the running container sees.
        """
        root = root or Path(f"/proc/{self.pid}/root")
        places = [name] if "/" in name else [f"{part}/{name}" for part in self.config.environment.get("PATH", PATH).split(":") if part]
        problem = f"exec: {json.dumps(name)}: " + (
            f"stat {name}: no such file or directory" if "/" in name else "executable file not found in $PATH"
        )
        for place in places:
            path = place if place.startswith("/") else f"{self.config.directory}/{place}"
            found = str(root) + resolve_in_root(root, path)
            if os.path.isfile(found) and os.stat(found).st_mode & 0o111:
                return None
            if os.path.exists(found):
                problem = f"exec: {json.dumps(name)}: permission denied"
        return problem

    def open_pty(self) -> tuple[int, int]:
        """A new terminal of the container: (master, slave)."""
        return syscalls.open_pty(f"/proc/{self.pid}/root/dev/pts/ptmx")

    def exec_argv(self, command: Sequence[str], *, tty: bool = False) -> list[str]:
        """The argv, for this machine, that runs ``command`` in the container as the container's user.

        Start it with ``exec_environment`` as its environment.
        """
        target = str(self.pid)
        argv = [_tool("nsenter"), "--target", target, "--mount", "--uts", "--ipc", "--net", "--pid"]
        argv += ["--", *(["/bin/setsid", "-c"] if tty else [])]
        directory = self.config.directory or "/"
        if directory != "/":
            argv += ["/bin/sh", "-c", 'cd "$0" && exec "$@"', directory]
        return [*argv, *self._privileges(), *command]

    @property
    def exec_environment(self) -> dict[str, str]:
        """The environment of every process in the container."""
        return {k: v for k, v in self.config.environment.items() if k and "\0" not in v}

    def termination_message(self) -> str:
        """What it wrote to /dev/termination-log (at most 4096 bytes)."""
        try:
            with open(self.termination_log, "rb") as file:
                return file.read(4096).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def remove(self) -> None:
        """Frees its file system; it must have ended."""
        self.close_stdin()
        syscalls.unmount(str(self.root))
        shutil.rmtree(self.directory, ignore_errors=True)


def resolve_in_root(root: Path, path: str) -> str:
    """``path`` with the symbolic links of the tree below ``root`` followed, as a process chrooted there would see it."""
    done: list[str] = []
    todo = [part for part in path.split("/") if part]
    links = 0
    while todo:
        part = todo.pop(0)
        if part == ".":
            continue
        if part == "..":
            done[-1:] = []
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink() and links < 40:
            links += 1
            destination = os.readlink(here)
            if destination.startswith("/"):
                done = []
            todo[:0] = [p for p in destination.split("/") if p]
        else:
            done.append(part)
    return "/" + "/".join(done)


def find_user(root: Path, text: str) -> User:
    """A user of the image, by name or number, with ``:group`` if given (the OCI image field User).

    Raises:
        StartError: when the image has no such name.
    """
    name, _, group = text.partition(":")

    def rows(file: str) -> list[list[str]]:
        path = root / "etc" / file
        return [line.split(":") for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    user = User()
    if name:
        for row in rows("passwd"):
            if name == row[0] or (name.isdigit() and name == row[2]):
                user = User(int(row[2]), int(row[3]), (), row[5] or "/")
                break
        else:
            if not name.isdigit():
                raise StartError(f"failed to create containerd container: mount callback failed: no users found: {name}")
            user = User(int(name), 0, (), "/")
    if group:
        for row in rows("group"):
            if group == row[0] or (group.isdigit() and group == row[2]):
                user.gid = int(row[2])
                break
        else:
            if group.isdigit():
                user.gid = int(group)
    return user
