"""A pod's volumes, as directories of this machine that are bound into its containers.

Volumes made of API objects are written the way the kubelet's AtomicWriter does it: the files are in a new directory
``..TIMESTAMP``, the link ``..data`` is swapped to it in one rename, and the visible names are links through ``..data``.
So a reader sees all of the old content or all of the new.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .environment import ConfigError, expand, pod_field, resource_field
from .sandbox import Mount, resolve_in_root

_KINDS = ("emptyDir", "configMap", "secret", "projected", "downwardAPI")
_PLUGIN = {"emptyDir": "empty-dir", "configMap": "configmap", "secret": "secret", "projected": "projected", "downwardAPI": "downward-api"}


class VolumeError(Exception):
    """A volume that can't be set up (event FailedMount)."""

    def __init__(self, volume: str, why: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {why}')


class Volumes:
    """The volumes of one pod.

    Args:
        directory: on disk; emptyDir content in it outlives a restart of the cluster, as it does on a real node.
        memory: in a tmpfs, for everything else.
        find: ``find("configmaps", name)`` looks in the pod's namespace.
        token: makes a service account token for an audience ("" is the API server's) and a lifetime in seconds.
    """

    def __init__(
        self,
        pod: dict,
        directory: Path,
        memory: Path,
        *,
        find: Callable[[str, str], dict | None],
        token: Callable[[str, int], str],
        allocatable: Mapping[str, str],
    ) -> None:
        self._pod = pod
        self._directory = directory
        self._memory = memory
        self._find = find
        self._token = token
        self._allocatable = allocatable
        self._written: dict[str, dict[str, tuple[bytes, int]]] = {}
        self._tokens: dict[tuple[str, str], tuple[float, str]] = {}

    def sources(self) -> set[tuple[str, str]]:
        """The (resource, name) of every API object that the volumes are made of."""
        result: set[tuple[str, str]] = set()
        for volume in self._pod["spec"].get("volumes") or []:
            parts = volume["projected"].get("sources") or [] if "projected" in volume else [volume]
            for part in parts:
                if "configMap" in part:
                    result.add(("configmaps", part["configMap"].get("name", "")))
                if "secret" in part:
                    result.add(("secrets", part["secret"].get("secretName") or part["secret"].get("name", "")))
        return result

    def _kind(self, volume: dict) -> str:
        for kind in _KINDS:
            if kind in volume:
                return kind
        kind = next((k for k in volume if k != "name"), "emptyDir")
        if kind == "hostPath":
            raise VolumeError(
                volume["name"],
                "hostPath is not available in this cluster: a pod sees none of the machine's files; "
                "use an emptyDir, or a ConfigMap for files that you bring",
            )
        raise VolumeError(volume["name"], f"this cluster has no {kind} volumes (it has {', '.join(_KINDS)})")

    def path(self, volume: dict) -> Path:
        """Where a volume's content is."""
        kind = self._kind(volume)
        on_disk = kind == "emptyDir" and (volume["emptyDir"] or {}).get("medium") != "Memory"
        return (self._directory if on_disk else self._memory) / "volumes" / f"kubernetes.io~{_PLUGIN[kind]}" / volume["name"]

    def update(self, pod: dict) -> None:
        """Makes or refreshes every volume.

        Raises:
            VolumeError: for the first that fails.
        """
        self._pod = pod
        for volume in pod["spec"].get("volumes") or []:
            kind, path = self._kind(volume), self.path(volume)
            if kind == "emptyDir":
                if not path.exists():
                    path.mkdir(parents=True)
                    path.chmod(0o777)
                    self._give_to_group(path, 0o2777)
                continue
            try:
                files = self._payload(volume, kind)
            except ConfigError as error:
                raise VolumeError(volume["name"], str(error)) from error
            if self._written.get(volume["name"]) != files:
                self._write(path, files)
                self._written[volume["name"]] = files

    def _fs_group(self) -> int | None:
        return (self._pod["spec"].get("securityContext") or {}).get("fsGroup")

    def _give_to_group(self, path: Path, mode: int) -> None:
        group = self._fs_group()
        if group is not None:
            try:
                os.chown(path, -1, group)
            except OSError:  # only one group id exists in this user namespace
                return
            path.chmod(mode)

    def _write(self, path: Path, files: dict[str, tuple[bytes, int]]) -> None:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777 if self._fs_group() is None else 0o3777)
        old = os.readlink(path / "..data") if (path / "..data").is_symlink() else None
        stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()) + str(secrets.randbelow(4_000_000_000))
        for name, (content, mode) in files.items():
            file = path / stamp / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(mode)
            if self._fs_group() is not None:
                self._give_to_group(file, mode | 0o440)
        (path / stamp).mkdir(exist_ok=True)
        (path / stamp).chmod(0o755)
        temporary = path / "..data_tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(stamp)
        temporary.rename(path / "..data")
        visible = {name.split("/")[0] for name in files}
        for entry in list(path.iterdir()):
            if not entry.name.startswith("..") and entry.name not in visible:
                entry.unlink()
        for name in visible:
            if not (path / name).is_symlink():
                (path / name).symlink_to(f"..data/{name}")
        if old and old != stamp:
            shutil.rmtree(path / old, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------- payload

    def _payload(self, volume: dict, kind: str) -> dict[str, tuple[bytes, int]]:
        source = volume[kind] or {}
        mode = source.get("defaultMode", 0o644)
        if kind == "projected":
            files: dict[str, tuple[bytes, int]] = {}
            for part in source.get("sources") or []:
                files.update(self._projected(volume["name"], part, mode))
            return files
        if kind == "downwardAPI":
            return self._downward(source.get("items") or [], mode)
        return self._object(kind, source, mode)

    def _projected(self, volume: str, part: dict, mode: int) -> dict[str, tuple[bytes, int]]:
        for kind in ("configMap", "secret"):
            if kind in part:
                return self._object(kind, part[kind], mode)
        if "downwardAPI" in part:
            return self._downward(part["downwardAPI"].get("items") or [], mode)
        if "serviceAccountToken" in part:
            wanted = part["serviceAccountToken"]
            key, lifetime = (volume, wanted["path"]), wanted.get("expirationSeconds", 3600)
            if key not in self._tokens or self._tokens[key][0] < time.time():
                self._tokens[key] = (time.time() + 0.8 * lifetime, self._token(wanted.get("audience", ""), lifetime))
            return {wanted["path"]: (self._tokens[key][1].encode(), mode)}
        raise ConfigError(f"this cluster has no projected source {', '.join(part)}")

    def _object(self, kind: str, source: dict, mode: int) -> dict[str, tuple[bytes, int]]:
        resource, title = ("configmaps", "configmap") if kind == "configMap" else ("secrets", "secret")
        name = source.get("secretName") or source.get("name", "")
        found = self._find(resource, name)
        if found is None:
            if source.get("optional"):
                return {}
            raise ConfigError(f'{title} "{name}" not found')
        content = {k: base64.b64decode(v) for k, v in (found.get("binaryData" if kind == "configMap" else "data") or {}).items()}
        if kind == "configMap":
            content.update({k: v.encode() for k, v in (found.get("data") or {}).items()})
        if not source.get("items"):
            return {k: (v, mode) for k, v in sorted(content.items())}
        files = {}
        for item in source["items"]:
            if item["key"] not in content:
                if source.get("optional"):
                    continue
                what = "configmap references non-existent config" if kind == "configMap" else "references non-existent secret"
                raise ConfigError(f"{what} key: {item['key']}")
            files[item["path"]] = (content[item["key"]], item.get("mode", mode))
        return files

    def _downward(self, items: list[dict], mode: int) -> dict[str, tuple[bytes, int]]:
        files = {}
        for item in items:
            if "fieldRef" in item:
                text = pod_field(self._pod, item["fieldRef"]["fieldPath"])
            else:
                text = resource_field(self._pod, item["resourceFieldRef"], self._pod["spec"]["containers"][0], self._allocatable)
            files[item["path"]] = (text.encode(), item.get("mode", mode))
        return files

    # --------------------------------------------------------------------------------------------------------- mounts

    def mounts(self, container: dict, environment: Mapping[str, str]) -> list[Mount]:
        """A container's volumeMounts as bind mounts.

        Raises:
            ConfigError: for a subPath that leaves its volume.
        """
        volumes = {v["name"]: v for v in self._pod["spec"].get("volumes") or []}
        result = []
        for mount in container.get("volumeMounts") or []:
            volume = volumes[mount["name"]]
            source = self.path(volume)
            sub = mount.get("subPath") or expand(mount.get("subPathExpr") or "", environment)
            if sub:
                if ".." in sub.split("/") or sub.startswith("/"):
                    raise ConfigError(f'failed to prepare subPath for volumeMount "{mount["name"]}" of container "{container["name"]}"')
                inside = Path(str(source) + resolve_in_root(source, sub))
                if not inside.exists():
                    inside.mkdir(parents=True)
                    inside.chmod(0o777)
                source = inside
            from_api = self._kind(volume) != "emptyDir"
            result.append(Mount(str(source), os.path.normpath(mount["mountPath"]), bool(mount.get("readOnly")) or from_api))
        return result
