"""The YAML files in ``manifests/``, and how a lesson's parameters change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .errors import LabError, NotFound

FOLDER = Path(__file__).resolve().parents[2] / "manifests"


def path(name: str) -> Path:
    """The file of a manifest, such as ``run-my-nginx.yaml``.

    Raises:
        NotFound: there is none of that name; lists those there are.
    """
    file = FOLDER / name
    if file.parent != FOLDER or not file.is_file():
        there = ", ".join(sorted(f.name for f in FOLDER.glob("*.yaml"))) or "none"
        raise NotFound(f"There is no manifest {name!r} in manifests/; there are: {there}.")
    return file


def load(name: str, **edits: Any) -> list[dict[str, Any]]:
    """The objects of a manifest with the parameters put in. A parameter that is None changes nothing.

    Args:
        name: file name in ``manifests/``.
        **edits: ``replicas`` (of Deployments), ``image`` (of the containers that run the same program), ``node_port`` (of a
            NodePort Service's first port; ``"auto"`` lets the cluster choose), ``node_port_https`` (of its port named https).

    Raises:
        LabError: an unknown parameter, or one that nothing in the manifest takes.
    """
    objects = [o for o in yaml.safe_load_all(path(name).read_text(encoding="utf-8")) if o]
    for key, value in edits.items():
        if key not in _EDITS:
            raise LabError(f"{key!r} is no parameter of a manifest; there are {', '.join(_EDITS)}.")
        if value is not None and not sum(_EDITS[key](o, value) for o in objects):
            raise LabError(f"Nothing in {name} takes the parameter {key}={value!r}.")
    return objects


def text(objects: list[dict[str, Any]]) -> str:
    """Objects as one YAML stream for ``kubectl apply -f -``."""
    return yaml.safe_dump_all(objects, sort_keys=False)


def takes(name: str, parameter: str, value: Any) -> bool:
    """Whether anything in the manifest changes with this parameter."""
    return value is not None and parameter in _EDITS and any(_EDITS[parameter](o, value) for o in load(name))


def _replicas(obj: dict, value: Any) -> bool:
    if obj["kind"] != "Deployment":
        return False
    obj["spec"]["replicas"] = int(value)
    return True


def _program(image: str) -> str:
    return image.rsplit("/", 1)[-1].split("@", maxsplit=1)[0].split(":", maxsplit=1)[0]


def _image(obj: dict, value: Any) -> bool:
    spec = (
        obj["spec"]
        if obj["kind"] == "Pod"
        else obj.get("spec", {}).get("template", {}).get("spec", {})
        if obj["kind"] == "Deployment"
        else {}
    )
    same = [c for c in spec.get("containers") or [] if _program(c["image"]) == _program(value)]
    if not same and obj["kind"] == "Deployment" and len(spec.get("containers") or []) == 1:
        same = spec["containers"]  # a mirror may have given the image another name
    for container in same:
        container["image"] = value
    return bool(same)


def _port(obj: dict, value: Any, index: Callable[[list[dict]], dict | None]) -> bool:
    if obj["kind"] != "Service" or obj["spec"].get("type") not in ("NodePort", "LoadBalancer"):
        return False
    port = index(obj["spec"]["ports"])
    if port is None:
        return False
    if value == "auto":
        port.pop("nodePort", None)
    else:
        port["nodePort"] = int(value)
    return True


_EDITS: dict[str, Callable[[dict, Any], bool]] = {
    "replicas": _replicas,
    "image": _image,
    "node_port": lambda obj, value: _port(obj, value, lambda ports: ports[0]),
    "node_port_https": lambda obj, value: _port(obj, value, lambda ports: next((p for p in ports if p.get("name") == "https"), None)),
}
