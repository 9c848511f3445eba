"""The bundle's file: a tar (gzip, or zstd by name) that begins with a manifest of every other member and its SHA-256 sum.

Nothing of a bundle is used before the whole of it has been read and every sum found right. This module needs only Python's standard
library and imports nothing of the lab, since `./lab` runs it before there is a Python environment::

    python3 lib/servicelab/bundle/archive.py wheels BUNDLE DIRECTORY
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

FORMAT = "servicelab-bundle"
VERSION = 1
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 16 << 20  # bytes
BLOCK = 1 << 20
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SUM = re.compile(r"[0-9a-f]{64}")

Told = Callable[[int, int], None]
"""Called with the bytes read so far and the size of the file."""


class BundleError(RuntimeError):
    """The bundle can't be used; says why, and what to do."""


def digest_of(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def full_name(image: str) -> str:
    """An image's name as container runtimes keep it, with the registry and the tag that a short name leaves out.

    Example:
        >>> full_name("nginx:1.29-alpine"), full_name("curlimages/curl"), full_name("localhost/x:1")
        ('docker.io/library/nginx:1.29-alpine', 'docker.io/curlimages/curl:latest', 'localhost/x:1')
    """
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif "." not in first and ":" not in first and first != "localhost":
        image = f"docker.io/{image}"
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def described(path: Path, name: str) -> dict[str, Any]:
    """The manifest's entry for a file that goes into the bundle under this name."""
    return {"path": name, "size": path.stat().st_size, "sha256": digest_of(path), "mode": 0o755 if os.access(path, os.X_OK) else 0o644}


# -- writing ---------------------------------------------------------------------------------------------------------------


def write(out: Path, manifest: dict[str, Any], sources: dict[str, Path], told: Told = lambda done, of: None) -> str:
    """Writes a bundle, whole or not at all.

    Args:
        out: the file; `.tar.zst` is compressed by the program zstd, everything else by gzip.
        manifest: what is in it, without the list of files; that is added here, with their sums.
        sources: where each member comes from.
        told: told the progress, in bytes of the members.

    Returns:
        str: the bundle's own SHA-256.

    Raises:
        BundleError: no zstd, no space, no right to write there.
    """
    try:
        files = [described(path, name) for name, path in sources.items()]
    except OSError as error:
        raise BundleError(f"The bundle can't be written: {error.filename} can't be read ({error.strerror}).") from error
    whole = {"format": FORMAT, "version": VERSION, **manifest, "files": files}
    text = json.dumps(whole, indent=1, ensure_ascii=False).encode()
    of, done = sum(entry["size"] for entry in files), 0
    part = out.with_name(f".{out.name}.part")
    try:
        with contextlib.ExitStack() as stack:
            packed = stack.enter_context(_compressing(stack.enter_context(part.open("wb")), out.name))
            tar = stack.enter_context(tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT))
            tar.addfile(_member(MANIFEST, len(text), 0o644), io.BytesIO(text))
            for entry in files:
                with sources[entry["path"]].open("rb") as file:
                    tar.addfile(_member(entry["path"], entry["size"], entry["mode"]), file)
                done += entry["size"]
                told(done, of)
        digest = digest_of(part)
        os.replace(part, out)
    except OSError as error:
        words = f"The bundle can't be written to {out}: {error.strerror or error}. Is there room? Name another file: --out."
        raise BundleError(words) from error
    finally:
        part.unlink(missing_ok=True)
    return digest


def _member(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info


@contextlib.contextmanager
def _compressing(raw: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    if not name.endswith(".zst"):
        # level 1: images and wheels are mostly compressed already, and a teacher waits for this
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed:
            yield packed
        return
    with _zstd("-q", "-3", "-T0", "-c", stdin=subprocess.PIPE, stdout=raw) as process:
        try:
            yield process.stdin  # type: ignore[misc]
        except BaseException:
            process.kill()
            raise
        process.stdin.close()  # type: ignore[union-attr]
        if process.wait():
            raise OSError(f"zstd ended with exit code {process.returncode}")


def zstd_program() -> str:
    """The path of zstd.

    Raises:
        BundleError: it is missing.
    """
    program = shutil.which("zstd")
    if not program:
        raise BundleError(
            "This bundle is compressed with zstd, and the program zstd is not on this machine. Install it (Debian, Ubuntu: sudo apt-get "
            "install zstd), or make the bundle with gzip instead: servicelab bundle --out servicelab.tar.gz"
        )
    return program


def _zstd(*args: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([zstd_program(), *args], **streams)


# -- reading ---------------------------------------------------------------------------------------------------------------


def read(
    path: Path,
    into: Path | None = None,
    wanted: Callable[[str], bool] = lambda name: True,
    told: Told = lambda done, of: None,
    fits: Callable[[dict[str, Any]], None] = lambda manifest: None,
) -> dict[str, Any]:
    """Reads a bundle from its first byte to its last, and checks all of it; members that are wanted go to a directory.

    When this raises, what was written so far is removed: nothing of a bundle that isn't whole is left to be used.

    Args:
        path: the bundle.
        into: an empty directory; None checks only.
        wanted: which members to write, by name.
        told: told the progress, in bytes of the bundle.
        fits: called with the manifest, before the members are read, to refuse a bundle that can't serve here.

    Returns:
        The manifest.

    Raises:
        BundleError: not a bundle, cut off, damaged, made by something else, or no room to unpack it.

    Example:
        >>> read(Path("/nowhere/bundle.tar.gz"))
        Traceback (most recent call last):
        servicelab.bundle.archive.BundleError: There is no bundle /nowhere/bundle.tar.gz: No such file or directory.
    """
    written: list[Path] = []
    try:
        return _read(path, into, wanted, told, fits, written)
    except BaseException as error:
        for file in written:
            file.unlink(missing_ok=True)
        if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError)):
            raise BundleError(
                f"{path} is damaged or cut off ({error or 'it ends too soon'}). Nothing of it was used. Copy it again, and compare it "
                "with the sum that servicelab bundle printed when it made it (sha256sum)."
            ) from error
        raise


def _read(path: Path, into: Path | None, wanted: Callable, told: Told, fits: Callable, written: list[Path]) -> dict[str, Any]:
    with _opened(path, told) as (stream, whole_sum):
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            first = tar.next()
            if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST_MANIFEST:
                raise BundleError(f"{path} is an archive, but no bundle of the lab: it does not begin with {MANIFEST}. {_MAKE}")
            manifest = _manifest(path, tar.extractfile(first).read())  # type: ignore[union-attr]
            fits(manifest)
            files = {entry["path"]: entry for entry in manifest["files"]}
            if into is not None:
                _room(into, sum(entry["size"] for name, entry in files.items() if wanted(name)))
            left = dict(files)
            while (member := tar.next()) is not None:
                entry = left.pop(member.name, None)
                if entry is None or not member.isreg() or member.size != entry["size"]:
                    what = "isn't in its manifest" if member.name not in files else "isn't what its manifest says"
                    raise BundleError(f"{path} is not whole: its member {member.name!r} {what}. Nothing of it was used. {_AGAIN}")
                target = into / member.name if into is not None and wanted(member.name) else None
                if target is not None:
                    written.append(target)
                if _copied(tar.extractfile(member), target, entry) != entry["sha256"]:  # type: ignore[arg-type]
                    raise BundleError(f"{path} is damaged: the sum of {member.name!r} is wrong. Nothing of it was used. {_AGAIN}")
            if left:
                raise BundleError(f"{path} is cut off: {len(left)} members are missing, such as {next(iter(left))!r}. {_AGAIN}")
        while stream.read(BLOCK):  # to the end: only then has gzip compared its own check sum
            pass
        beside, own = path.with_name(path.name + ".sha256"), whole_sum()
        said = _SUM.match(beside.read_text(encoding="utf-8", errors="replace")) if beside.exists() else None
        if said and said[0] != own:
            raise BundleError(f"{path} is not the file that {beside.name} beside it names: its SHA-256 is {own}. {_AGAIN}")
        return manifest


_MAKE = "servicelab bundle makes one."
_AGAIN = "Copy it again from where it was made, or make it anew: servicelab bundle."


def _copied(source: IO[bytes], target: Path | None, entry: dict[str, Any]) -> str:
    """Reads a member, writes it to a file if one is given, and returns its sum."""
    total = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        sink = None
        if target is not None:
            try:
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                sink = stack.enter_context(open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, entry.get("mode", 0o644)), "wb"))
            except OSError as error:
                raise BundleError(f"The bundle can't be unpacked to {target}: {error.strerror}.") from error
        while block := source.read(BLOCK):
            total.update(block)
            if sink is not None:
                try:
                    sink.write(block)
                except OSError as error:
                    raise BundleError(f"The bundle can't be unpacked to {target.parent}: {error.strerror}.") from error  # type: ignore[union-attr]
    return total.hexdigest()


class _Counted(io.RawIOBase):
    """The raw file, which tells how far it has been read and sums it up."""

    def __init__(self, file: IO[bytes], size: int, told: Told) -> None:
        self.file, self.size, self.told = file, size, told
        self.sum, self.done = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer)  # type: ignore[attr-defined]
        self.sum.update(memoryview(buffer)[:count])
        self.done += count
        self.told(self.done, self.size)
        return count


@contextlib.contextmanager
def _opened(path: Path, told: Told) -> Iterator[tuple[IO[bytes], Callable[[], str]]]:
    """The tar inside, as a stream, and what gives the sum of the file when all of it has been read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BundleError(f"There is no bundle {path}: {error.strerror}.") from error
    with file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == GZIP:
            counted = _Counted(file, path.stat().st_size, told)
            with gzip.GzipFile(fileobj=io.BufferedReader(counted, BLOCK)) as stream:
                yield stream, lambda: _rest(counted)
        elif start == ZSTD:
            counted = _Counted(file, path.stat().st_size, told)
            with _unzstd(path, counted) as stream:
                yield stream, lambda: _rest(counted)
        else:
            what = "is empty" if not start else "is neither a .tar.gz nor a .tar.zst"
            raise BundleError(f"{path} is no bundle of the lab: it {what}. {_MAKE}")


def _rest(counted: _Counted) -> str:
    while counted.read(BLOCK):
        pass
    return counted.sum.hexdigest()


@contextlib.contextmanager
def _unzstd(path: Path, counted: _Counted) -> Iterator[IO[bytes]]:
    """zstd's output. Its input is fed by a thread, so that what goes in is counted and summed."""
    import threading

    process = _zstd("-q", "-d", "-c", "--long=31", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError):  # zstd has said already what is wrong with what it got
            while block := counted.read(BLOCK):
                process.stdin.write(block)  # type: ignore[union-attr]
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        with process:
            try:
                yield process.stdout  # type: ignore[misc]
            except BaseException:
                process.kill()
                feeder.join()
                raise
            feeder.join()
            said = process.stderr.read().decode(errors="replace").strip()  # type: ignore[union-attr]
            if process.wait():
                raise EOFError(said or "zstd could not read it")
    finally:
        feeder.join()


def _manifest(path: Path, text: bytes) -> dict[str, Any]:
    """The manifest, its form checked: the names in it become paths here."""
    try:
        manifest = json.loads(text)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        if manifest.get("version") != VERSION:
            raise BundleError(
                f"{path} is a bundle of form {manifest.get('version')!r}, and this lab reads form {VERSION}: use the lab that is in the "
                "bundle (tar -xf BUNDLE lab), or make the bundle with this one."
            )
        names = set()
        for entry in manifest["files"]:
            name, size, digest = entry["path"], entry["size"], entry["sha256"]
            pure = PurePosixPath(name)
            odd = pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or str(pure) != name
            if odd or name in names or name == MANIFEST:
                raise ValueError(f"{name!r} can't be the name of a member")
            if not isinstance(size, int) or size < 0 or not _SUM.fullmatch(digest) or entry.get("mode", 0o644) not in (0o644, 0o755):
                raise ValueError(f"the entry of {name!r} is wrong")
            names.add(name)
        return manifest
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is no bundle of the lab: its manifest can't be read ({error}). {_MAKE}") from error


def _room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed * 1.05:
        raise BundleError(
            f"There is too little room in {directory} to unpack the bundle: {needed >> 20} MB are needed, {free >> 20} MB are free. "
            "Free some, or set TMPDIR and SERVICELAB_STATE to directories on another disk."
        )


# -- the wheels, for ./lab ---------------------------------------------------------------------------------------------------


def machine() -> tuple[str, str]:
    """The operating system and processor that wheels must be made for, such as ('Linux', 'x86_64')."""
    names = {"amd64": "x86_64", "aarch64": "arm64"}
    return platform.system(), names.get(platform.machine().lower(), platform.machine().lower())


def own_python() -> str:
    """The version of this Python as wheels are made for, such as "3.12"."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def fitting_wheels(requirements: bytes | None) -> Callable[[dict[str, Any]], None]:
    """A check that a bundle's wheels are for this Python, this machine and these requirements."""

    def fits(manifest: dict[str, Any]) -> None:
        wheels = manifest.get("wheels") or {}
        here, own = own_python(), " ".join(machine())
        if wheels.get("machine") != own:
            raise BundleError(f"This bundle's wheels are for {wheels.get('machine')}, and this is {own}. Make one on such a machine.")
        if here not in (wheels.get("pythons") or []):
            raise BundleError(
                f"This bundle has wheels for Python {' and '.join(wheels.get('pythons') or ['(none)'])}, and this is Python {here}. Name "
                "another: SERVICELAB_PYTHON=/path/to/python3 ./lab; or make the bundle with wheels for this one, too: "
                f"servicelab bundle --python {here}"
            )
        if requirements is not None and wheels.get("requirements") != hashlib.sha256(requirements).hexdigest():
            raise BundleError(
                "This bundle was made from another version of the lab: its wheels are not those of this requirements.txt. Use the lab "
                "that is in the bundle: tar -xf BUNDLE lab && cd lab"
            )

    return fits


def wheels(path: Path, directory: Path, requirements: bytes | None, told: Told = lambda done, of: None) -> None:
    """Checks the whole bundle and unpacks its wheels alone.

    Raises:
        BundleError: as `read`; or the wheels are not for this Python, this machine, this version of the lab.
    """
    read(path, directory, lambda name: name.startswith("wheels/"), told, fitting_wheels(requirements))


def percent(what: str, stream: IO[str] | None = None) -> Told:
    """Tells progress on a terminal's line; a line for each quarter elsewhere."""
    out = stream or sys.stderr
    last = -1

    def told(done: int, of: int) -> None:
        nonlocal last
        now = 100 * done // max(of, 1)
        if out.isatty():
            if now != last:
                out.write(f"\r{what}: {now} %" + ("\n" if now >= 100 else ""))
                out.flush()
        elif now // 25 != last // 25:
            out.write(f"{what}: {now} %\n")
        last = now

    return told


def main(argv: Iterable[str]) -> int:
    """What `./lab` calls: `wheels BUNDLE DIRECTORY REQUIREMENTS`."""
    arguments = list(argv)
    if len(arguments) != 4 or arguments[0] != "wheels":
        print("usage: archive.py wheels BUNDLE DIRECTORY REQUIREMENTS", file=sys.stderr)
        return 2
    _, bundle, directory, requirements = arguments
    try:
        wheels(Path(bundle), Path(directory), Path(requirements).read_bytes(), percent("lab: checking the bundle"))
    except BundleError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
