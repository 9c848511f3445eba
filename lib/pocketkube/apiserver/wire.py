"""What goes over the wire around an object: forms of answers, options of requests, tokens of pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from . import errors
from .api import ApiError, Options


@dataclass
class Form:
    """The form in which a client wants its answer: ``json`` or ``yaml``, as ``""`` (the object), ``Table`` or ``PartialObjectMetadata``."""

    media: str = "json"
    shape: str = ""


def json_response(value: Any, *, status: int = 200, media: str = "application/json", headers: Mapping[str, str] | None = None
                  ) -> web.Response:
    """An answer in JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return web.Response(body=body, status=status,
                        headers={"Cache-Control": "no-cache, private", "Content-Type": media, **(headers or {})})


def warning(text: str) -> str:
    """A warning header's value (RFC 7234, code 299)."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return '299 - "' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'


def accepted_form(request: web.Request) -> Form:
    """The first of the client's accepted forms that this server can give.

    Raises:
        ApiError: NotAcceptable.
    """
    header = request.headers.get("Accept") or "*/*"
    for item in header.split(","):
        media, _, rest = item.strip().partition(";")
        parameters = dict(part.strip().partition("=")[::2] for part in rest.split(";") if "=" in part)
        shape = parameters.get("as", "")
        if media not in ("application/json", "application/yaml", "*/*", "application/*"):
            continue
        if shape and (parameters.get("g") != "meta.k8s.io" or parameters.get("v") != "v1"):
            continue
        if shape in ("PartialObjectMetadataList", "PartialObjectMetadata"):
            shape = "PartialObjectMetadata"
        elif shape not in ("", "Table"):
            continue
        return Form("yaml" if media == "application/yaml" else "json", shape)
    raise ApiError(406, "NotAcceptable", "only the following media types are accepted: application/json, application/yaml")


def write_options(request: web.Request) -> Options:
    """What the query of a write asks for: dry run, field manager and validation, force.

    Raises:
        ApiError: Invalid, for values that the API doesn't know.
    """
    query = request.query
    dry = query.getall("dryRun", [])
    if dry and dry != ["All"]:
        kind = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}.get(request.method, "DeleteOptions")
        raise errors.invalid_object(kind, "meta.k8s.io", "", [errors.not_supported("dryRun", dry[0], ["All"])])
    strictness = query.get("fieldValidation") or "Warn"
    if strictness not in ("Ignore", "Warn", "Strict"):
        raise errors.invalid_object("CreateOptions", "meta.k8s.io", "", [
            errors.not_supported("fieldValidation", strictness, ["", "Ignore", "Strict", "Warn"])])
    manager = query.get("fieldManager") or (request.headers.get("User-Agent") or "unknown").split("/")[0]
    return Options(dry_run=bool(dry), manager=manager[:128], validation=strictness, force=query.get("force") in ("true", "1"))


def delete_arguments(given: dict[str, Any], request: web.Request) -> dict[str, Any]:
    """The arguments of :meth:`Api.delete` from ``DeleteOptions`` in the body or the query.

    Raises:
        ApiError: Invalid or BadRequest, for values that the API doesn't know.
    """
    query, preconditions = request.query, given.get("preconditions") or {}
    grace = given.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    propagation = given.get("propagationPolicy") or query.get("propagationPolicy")
    if propagation not in (None, "Background", "Foreground", "Orphan"):
        raise errors.invalid_object("DeleteOptions", "meta.k8s.io", "", [
            errors.not_supported("propagationPolicy", propagation, ["Background", "Foreground", "Orphan"])])
    if given.get("orphanDependents") is not None and propagation is None:
        propagation = "Orphan" if given["orphanDependents"] else "Background"
    try:
        seconds = int(grace) if grace not in (None, "") else None
    except (TypeError, ValueError) as error:
        raise errors.bad_request(f"gracePeriodSeconds: {grace!r} is not a number of seconds") from error
    return {"grace_seconds": seconds, "propagation": propagation, "uid": preconditions.get("uid"),
            "resource_version": preconditions.get("resourceVersion")}


def number(query: Mapping[str, str], name: str) -> int | None:
    """A whole number from the query, or None where it isn't given.

    Raises:
        ApiError: BadRequest: it isn't a number.
    """
    text = query.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax (query parameter {name})')
    return int(text)


def resource_version(text: str | None) -> int | None:
    """The version that a list or watch names, or None.

    Raises:
        ApiError: BadRequest: it isn't one.
    """
    if not text:
        return None
    if not text.isdigit():
        problem = errors.invalid("resourceVersion", text, f'strconv.ParseUint: parsing "{text}": invalid syntax')
        raise errors.bad_request(f"invalid resource version: {problem}")
    return int(text)


def continue_token(revision: int, namespace: str, name: str) -> str:
    """The token with which a client asks for the page after the object of that name."""
    raw = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": f"{namespace}/{name}\0"})
    return base64.urlsafe_b64encode(raw.encode()).decode()


def continue_key(token: str) -> tuple[str, str]:
    """The namespace and name after which the page begins.

    Raises:
        ApiError: BadRequest: the token isn't one of ours.
    """
    try:
        start = json.loads(base64.urlsafe_b64decode(token.encode()))["start"]
        namespace, _, name = start.rstrip("\0").rpartition("/")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = "it must be the one that the previous page of the list came with"
        raise errors.bad_request(f"invalid continue token: continue key is not valid: {why}") from error
    return namespace, name
