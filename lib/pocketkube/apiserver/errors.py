"""Errors of the Kubernetes API, each of which is a ``metav1.Status`` on the wire.

The reasons, codes and wordings are those of ``k8s.io/apimachinery/pkg/api/errors``: clients (kubectl above all) decide by them
what to print and whether to try again.
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A request which the API refuses.

    Attributes:
        code: the HTTP status code.
        reason: Kubernetes' machine-readable reason, such as ``NotFound`` or ``Invalid``.
        message: the sentence for people.
        details: the ``details`` of the Status (name, group, kind, causes), or None.

    >>> not_found("pods", "", "web").message
    'pods "web" not found'
    """

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None):
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> dict[str, Any]:
        """The error as a ``metav1.Status`` object."""
        status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message}
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        status["code"] = self.code
        return status


def qualified(plural: str, group: str) -> str:
    """``deployments.apps``, or just ``pods`` in the core group."""
    return f"{plural}.{group}" if group else plural


def _details(name: str, group: str, kind: str, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in details.items() if value}


def not_found(plural: str, group: str, name: str) -> ApiError:
    """The object isn't there (404)."""
    return ApiError(404, "NotFound", f'{qualified(plural, group)} "{name}" not found', _details(name, group, plural))


def no_such_path() -> ApiError:
    """No resource is served at that path (404); kubectl turns this into "the server doesn't have a resource type"."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """An object of that name is there already (409)."""
    return ApiError(409, "AlreadyExists", f'{qualified(plural, group)} "{name}" already exists', _details(name, group, plural))


def conflict(plural: str, group: str, name: str, why: str) -> ApiError:
    """The object has changed since it was read, or a precondition fails (409)."""
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(name, group, plural))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def bad_request(message: str) -> ApiError:
    """The request can't be understood (400)."""
    return ApiError(400, "BadRequest", message)


def forbidden(plural: str, group: str, name: str, why: str, causes: list[dict[str, Any]] | None = None) -> ApiError:
    """The server understands the request and refuses it (403)."""
    message = f'{qualified(plural, group)} "{name}" is forbidden: {why}' if name else f"{qualified(plural, group)} is forbidden: {why}"
    return ApiError(403, "Forbidden", message, _details(name, group, plural, causes=causes))


def method_not_supported(plural: str, group: str, verb: str) -> ApiError:
    """The resource doesn't know that verb (405)."""
    return ApiError(405, "MethodNotAllowed", f'{verb} is not supported on resources of kind "{qualified(plural, group)}"',
                    _details("", group, plural))


def not_implemented(what: str) -> ApiError:
    """The embedded cluster leaves this out (501)."""
    hint = "try it on a kind cluster (servicelab up --cluster kind)"
    return ApiError(501, "NotImplemented", f"{what} is not part of the embedded cluster: {hint}")


def expired(message: str) -> ApiError:
    """The version asked for is no longer known (410): list again and go on from there."""
    return ApiError(410, "Expired", message)


def too_large(message: str) -> ApiError:
    """The request's body is too large (413)."""
    return ApiError(413, "RequestEntityTooLarge", message)


def internal(message: str) -> ApiError:
    """Something on the server's side failed (500)."""
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


class FieldError:
    """One thing wrong with one field, in the words of ``k8s.io/apimachinery/pkg/util/validation/field``."""

    __slots__ = ("detail", "path", "reason")

    def __init__(self, path: str, reason: str, detail: str):
        self.path, self.reason, self.detail = path, reason, detail

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


def _quote(value: Any) -> str:
    import json

    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def required(path: str, detail: str = "") -> FieldError:
    """The field must be there."""
    return FieldError(path, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def invalid(path: str, value: Any, detail: str) -> FieldError:
    """The field's value is malformed."""
    return FieldError(path, "FieldValueInvalid", f"Invalid value: {_quote(value)}: {detail}")


def not_supported(path: str, value: Any, supported: list[str]) -> FieldError:
    """The field's value is none of the few that are known."""
    shown = ", ".join(_quote(one) for one in supported)
    return FieldError(path, "FieldValueNotSupported", f"Unsupported value: {_quote(value)}: supported values: {shown}")


def duplicate(path: str, value: Any) -> FieldError:
    """The value must be unique and is not."""
    return FieldError(path, "FieldValueDuplicate", f"Duplicate value: {_quote(value)}")


def not_allowed(path: str, detail: str) -> FieldError:
    """The field mustn't be set here, or changed in this way."""
    return FieldError(path, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(path: str, maximum: int) -> FieldError:
    """The value is longer than allowed, in bytes."""
    return FieldError(path, "FieldValueTooLong", f"Too long: may not be more than {maximum} bytes")


def field_not_found(path: str, value: Any) -> FieldError:
    """The value refers to something that isn't there."""
    return FieldError(path, "FieldValueNotFound", f"Not found: {_quote(value)}")


def invalid_object(kind: str, group: str, name: str, errors: list[FieldError]) -> ApiError:
    """The object as a whole is invalid (422), with every reason as a cause."""
    texts = [str(error) for error in errors]
    unique = list(dict.fromkeys(texts))
    shown = unique[0] if len(unique) == 1 else "[" + ", ".join(unique) + "]"
    causes = [{"reason": error.reason, "message": error.detail, "field": error.path} for error in errors]
    return ApiError(422, "Invalid", f'{qualified(kind, group)} "{name}" is invalid: {shown}', _details(name, group, kind, causes=causes))
