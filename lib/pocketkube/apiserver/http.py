"""The API over HTTP: paths, authentication, content types, and the answers' form."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from . import apply, discovery, errors, events, fields, openapi, reviews, schema, selectors, tables
from .api import Api, ApiError, Options
from .resources import BY_PLURAL, GROUPS, REVIEWS, Resource
from .watch import Watch
from .wire import (
    Form,
    accepted_form,
    continue_key,
    continue_token,
    delete_arguments,
    json_response,
    number,
    resource_version,
    warning,
    write_options,
)

log = logging.getLogger(__name__)

KUBELETS: web.AppKey[dict[str, Any]] = web.AppKey("kubelets", dict)
"""The kubelets by their nodes' names, for the handlers of logs, exec, attach and port-forward."""

MAX_BODY = 3 * 1024 * 1024
"""The largest request that the API server reads, in bytes."""

PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
_STREAMS = {"exec": "exec_", "attach": "attach", "portforward": "portforward", "log": "log"}
_NEVER_ANY = {"resourcequotas": "ResourceQuota", "limitranges": "LimitRange"}
_ENDPOINTS_WARNING = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"


@dataclass
class Target:
    """What a request's path names."""

    resource: Resource
    group: str
    namespace: str | None
    name: str | None
    subresource: str | None


def make_app(api: Api, *, token: str, kubelets: dict[str, Any], version_info: Mapping[str, str]) -> web.Application:
    """The API server as an aiohttp application (the caller adds TLS).

    Args:
        token: the bearer token of the cluster's administrator.
        kubelets: by node name; may be filled later.
        version_info: the answer to ``/version``.
    """
    server = Server(api, token=token, version_info=version_info)
    app = web.Application(client_max_size=MAX_BODY + 1)
    app[KUBELETS] = kubelets
    app.router.add_route("*", "/{path:.*}", server.handle)

    async def stop(_: web.Application) -> None:
        server.stop()

    app.on_shutdown.append(stop)
    return app


class Server:
    """Handles every request; see :func:`make_app`."""

    def __init__(self, api: Api, *, token: str, version_info: Mapping[str, str]):
        self.api = api
        self._token = token.encode()
        self._version = dict(version_info)
        self._watches: set[Watch] = set()

    def stop(self) -> None:
        """End all watches, so that the server can stop at once."""
        for watch in tuple(self._watches):
            watch.end()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; whatever goes wrong becomes a ``metav1.Status``."""
        try:
            user = self._authenticate(request)
            return await self._route(request, user)
        except ApiError as error:
            response = json_response(error.status(), status=error.code)
            if "/endpoints/" in f"{request.path}/":
                response.headers["Warning"] = warning(_ENDPOINTS_WARNING)
            return response
        except web.HTTPRequestEntityTooLarge:
            error = errors.too_large(f"Request entity too large: limit is {MAX_BODY}")
            return json_response(error.status(), status=413)
        except web.HTTPException:
            raise
        except (asyncio.CancelledError, ConnectionResetError):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return json_response(errors.internal(f"{type(error).__name__}: {error}").status(), status=500)

    # --- who asks -----------------------------------------------------------------------------------------------------------------------

    def _authenticate(self, request: web.Request) -> str:
        header = request.headers.get("Authorization", "")
        scheme, _, credential = header.partition(" ")
        if scheme.lower() == "bearer":
            if hmac.compare_digest(credential.strip().encode(), self._token):
                return reviews.ADMINISTRATOR
            account = self.api.account_of(credential.strip())
            if account:
                return account
        elif not header and request.path.rstrip("/").startswith(_OPEN_PATHS):
            return "system:anonymous"
        raise ApiError(401, "Unauthorized", "Unauthorized")

    # --- paths --------------------------------------------------------------------------------------------------------------------------

    async def _route(self, request: web.Request, user: str) -> web.StreamResponse:
        parts = [part for part in request.path.split("/") if part]
        first = parts[0] if parts else ""
        if first in ("api", "apis"):
            return await self._api(request, parts, user)
        if request.method not in ("GET", "HEAD"):
            raise errors.no_such_path()
        if not parts:
            paths = ["/api", "/api/v1", "/apis", *(f"/apis/{group}/{version}" for group, version in GROUPS), "/healthz", "/livez",
                     "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            return json_response({"paths": sorted(paths)})
        if first == "version":
            return json_response(self._version)
        if first in ("healthz", "livez", "readyz"):
            if len(parts) == 1 and "verbose" in request.query:
                return web.Response(text=f"[+]ping ok\n[+]log ok\n[+]etcd ok\n{first} check passed\n")
            return web.Response(text="ok")
        if first == "openapi":
            return await self._openapi(parts, request.headers.get("Accept", ""))
        raise errors.no_such_path()

    async def _openapi(self, parts: list[str], accept: str) -> web.StreamResponse:
        headers = {"Etag": f'"{openapi.digest()}"', "Cache-Control": "public"}
        if parts[1:] == ["v3"]:
            return json_response(openapi.index(), headers=headers)
        if parts[1:] == ["v2"] and "proto-openapi" in accept and "application/json" not in accept:
            return web.Response(body=openapi.SWAGGER_PROTOBUF, headers={**headers, "Content-Type": openapi.SWAGGER_PROTOBUF_TYPE})
        if parts[1:] == ["v2"]:
            return web.Response(body=await asyncio.to_thread(openapi.swagger), content_type="application/json", headers=headers)
        if parts[1:3] == ["v3", "api"] and len(parts) == 4:
            body = await asyncio.to_thread(openapi.document, "", parts[3])
        elif parts[1:3] == ["v3", "apis"] and len(parts) == 5:
            body = await asyncio.to_thread(openapi.document, parts[3], parts[4])
        else:
            raise errors.no_such_path()
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _api(self, request: web.Request, parts: list[str], user: str) -> web.StreamResponse:
        core = parts[0] == "api"
        if len(parts) == (2 if core else 3):
            return json_response(discovery.api_resources("" if core else parts[1], parts[-1]))
        if len(parts) == 1:
            for version in ("v2", "v2beta1"):
                if f"g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" in request.headers.get("Accept", "").replace(" ", ""):
                    return json_response(discovery.aggregated(core, version=version),
                                 media=f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList",
                                 headers={"Vary": "Accept"})
            return json_response(discovery.api_versions(request.host) if core else discovery.api_groups())
        if len(parts) == 2:
            return json_response(discovery.api_group(parts[1]))
        group, version, rest = ("", parts[1], parts[2:]) if core else (parts[1], parts[2], parts[3:])
        if (group, version) not in (("", "v1"), *GROUPS):
            raise errors.no_such_path()
        if any(plural == rest[-1] for plural, *_ in REVIEWS.get(group, ())):
            if request.method != "POST":
                raise errors.method_not_supported(rest[-1], group, _verb(request))
            return await self._review(request, group, rest, user)
        if group == "" and rest[-1] in _NEVER_ANY and rest[:1] == ["namespaces"] and len(rest) == 3:
            return self._never_any(request, rest[-1])
        target = self._target(group, rest)
        self._authorize(request, target, user)
        return await self._serve(request, target)

    @staticmethod
    def _never_any(request: web.Request, plural: str) -> web.StreamResponse:
        """Kinds of which this cluster never has one, and which ``kubectl describe`` of others asks for: an empty list."""
        if _verb(request) == "create":
            raise errors.not_implemented(f"the resource {plural}")
        if request.method != "GET" or "watch" in request.query:
            raise errors.no_such_path()
        return json_response({"kind": f"{_NEVER_ANY[plural]}List", "apiVersion": "v1", "metadata": {"resourceVersion": "0"}, "items": []})

    async def _review(self, request: web.Request, group: str, rest: list[str], user: str) -> web.StreamResponse:
        body = await self._body(request)
        namespace = rest[1] if rest[0] == "namespaces" else None
        return self._respond(request, accepted_form(request), reviews.answer(self.api, rest[-1], body, user, namespace, self._token), 201)

    def _target(self, group: str, rest: list[str]) -> Target:
        namespace = None
        if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("finalize", "status"):
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = rest[0], rest[1] if len(rest) > 1 else None, "/".join(rest[2:]) or None
        if plural == "bindings" and group == "" and namespace and name is None:
            return Target(BY_PLURAL["pods"], group, namespace, None, "binding")
        resource = BY_PLURAL.get(plural)
        if resource is None or (resource.group != group and not (plural == "events" and group == "events.k8s.io")):
            raise errors.no_such_path()
        if namespace is not None and not resource.namespaced:
            raise errors.no_such_path()
        if namespace is None and resource.namespaced and name is not None:
            raise errors.no_such_path()
        if sub and sub.split("/")[0] == "proxy":
            raise errors.not_implemented(f"the subresource {plural}/proxy")
        if sub and not discovery.verbs_of(resource, sub):
            raise errors.no_such_path()
        return Target(resource, group, namespace, name, sub)

    @staticmethod
    def _authorize(request: web.Request, target: Target, user: str) -> None:
        """The administrator may do anything; a service account nothing, as long as no role says otherwise (and there are no roles here)."""
        if user == reviews.ADMINISTRATOR:
            return
        resource, group = target.resource, target.group
        plural = f"{resource.plural}/{target.subresource}" if target.subresource else resource.plural
        scope = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        why = f'User "{user}" cannot {_verb(request, target)} resource "{plural}" in API group "{group}" {scope}'
        raise errors.forbidden(plural, group, target.name or "", why)

    # --- objects ------------------------------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request, target: Target) -> web.StreamResponse:
        verb = _verb(request, target)
        # Objects are created in their collection, and changed one by one.
        misplaced = target.subresource is None and ((verb == "create" and target.name) or (verb in ("update", "patch") and not target.name))
        if misplaced or verb not in discovery.verbs_of(target.resource, target.subresource):
            raise errors.method_not_supported(target.resource.plural, target.resource.group, verb)
        if target.subresource in _STREAMS:
            return await self._stream(request, target)
        if verb == "watch":
            return await self._watch(request, target)
        handler: Callable[[web.Request, Target], Awaitable[web.StreamResponse]] = {
            "get": self._get, "list": self._list, "create": self._create, "update": self._update, "patch": self._patch,
            "delete": self._delete, "deletecollection": self._delete_collection,
        }[verb]
        return await handler(request, target)

    async def _stream(self, request: web.Request, target: Target) -> web.StreamResponse:
        from . import streaming

        pod = self.api.peek("pods", target.namespace, target.name or "")
        handler: Callable[..., Awaitable[web.StreamResponse]] = getattr(streaming, _STREAMS[target.subresource or ""])
        return await handler(request, pod)

    async def _get(self, request: web.Request, target: Target) -> web.StreamResponse:
        form = accepted_form(request)
        if target.subresource == "scale":
            return self._respond(request, form, self.api.get_scale(target.resource.plural, target.namespace or "", target.name or ""))
        obj = self.api.peek(target.resource.plural, target.namespace, target.name or "")
        return self._object(request, form, target, obj)

    async def _list(self, request: web.Request, target: Target) -> web.StreamResponse:
        form, query, resource = accepted_form(request), request.query, target.resource
        resource_version(query.get("resourceVersion"))
        found = self.api.select(resource.plural, target.namespace, labels=query.get("labelSelector"), fields=query.get("fieldSelector"))
        meta: dict[str, Any] = {"resourceVersion": str(self.api.store.revision)}
        limit = number(query, "limit") or 0
        if query.get("continue"):
            after = continue_key(query["continue"])
            found = [obj for obj in found if (obj["metadata"].get("namespace") or "", obj["metadata"]["name"]) > after]
        if limit and len(found) > limit:
            rest, found = len(found) - limit, found[:limit]
            last = found[-1]["metadata"]
            meta["continue"] = continue_token(self.api.store.revision, last.get("namespace") or "", last["name"])
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                meta["remainingItemCount"] = rest
        if form.shape == "Table":
            return self._respond(request, form, tables.table(resource, found, meta, include=query.get("includeObject") or "Metadata"),
                                 warn=resource)
        items = [self._shown(target, obj) for obj in found]
        if form.shape == "PartialObjectMetadata":
            listing = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
                       "items": [tables.partial(obj) for obj in items]}
        else:
            version = "events.k8s.io/v1" if target.group == "events.k8s.io" else resource.api_version
            # As in a real list, the items don't repeat the list's kind and version.
            listing = {"kind": f"{resource.kind}List", "apiVersion": version, "metadata": meta,
                       "items": [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in items]}
        return self._respond(request, form, listing, warn=resource)

    async def _create(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource, options = target.resource, write_options(request)
        if target.subresource:
            return await self._create_subresource(request, target, options)
        obj = await self._decode(request, target, options)
        meta = obj.setdefault("metadata", {})
        if resource.namespaced:
            if meta.get("namespace") not in (None, "", target.namespace):
                raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")
            meta["namespace"] = target.namespace
        made = self.api.create(resource.plural, obj, options=options)
        return self._object(request, accepted_form(request), target, made, 201, options.warnings)

    async def _create_subresource(self, request: web.Request, target: Target, options: Options) -> web.StreamResponse:
        body = await self._body(request)
        namespace, form = target.namespace or "", accepted_form(request)
        if target.subresource == "token":
            return self._respond(request, form, self.api.create_token(namespace, target.name or "", body), 201)
        meta = body.get("metadata") or {}
        if target.subresource == "binding":
            node = (body.get("target") or {}).get("name")
            if not node:
                name = target.name or meta.get("name", "")
                raise errors.invalid_object("Binding", "", name, [errors.required("target.name")])
            self.api.bind(namespace, target.name or meta.get("name", ""), node, uid=meta.get("uid"))
        else:
            given = body.get("deleteOptions") or {}
            self.api.delete("pods", namespace, target.name or "", options=options, **delete_arguments(given, request))
        return self._respond(request, form, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)

    async def _update(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource, options, name = target.resource, write_options(request), target.name or ""
        if target.subresource == "scale":
            scale = self.api.update_scale(resource.plural, target.namespace or "", name, await self._body(request), options=options)
            return self._respond(request, accepted_form(request), scale)
        obj = await self._decode(request, target, options)
        meta = obj.setdefault("metadata", {})
        if not meta.get("name"):
            meta["name"] = name
        if meta["name"] != name:
            raise errors.bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
        if resource.namespaced:
            if meta.get("namespace") not in (None, "", target.namespace):
                raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")
            meta["namespace"] = target.namespace
        done = self.api.update(resource.plural, obj, subresource=target.subresource, options=options)
        return self._object(request, accepted_form(request), target, done, 200, options.warnings)

    async def _patch(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource, options, name = target.resource, write_options(request), target.name or ""
        kind = PATCH_TYPES.get(request.content_type)
        if kind is None:
            accepted = ", ".join(PATCH_TYPES)
            raise ApiError(415, "UnsupportedMediaType",
                           f"the body of the request was in an unknown format - accepted media types include: {accepted}")
        body = await self._body(request, as_object=False, yaml=kind == "apply")
        if target.subresource == "scale":
            scale = self.api.get_scale(resource.plural, target.namespace or "", name)
            from .api import patched

            scale = patched(scale, body, "merge" if kind in ("apply", "strategic") else kind, None)
            done = self.api.update_scale(resource.plural, target.namespace or "", name, scale, options=options)
            return self._respond(request, accepted_form(request), done)
        status = 200
        if kind == "apply":
            done, created = apply.server_side(self.api, resource, target.namespace, name, body, target.subresource, options)
            status = 201 if created else 200
        else:
            done = self.api.patch(resource.plural, target.namespace, name, fields.without_marks(body), kind=kind,
                                  subresource=target.subresource, options=options)
        return self._object(request, accepted_form(request), target, done, status, options.warnings)

    async def _delete(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource, options, name = target.resource, write_options(request), target.name or ""
        given = await self._body(request, empty=True)
        if given.get("dryRun") == ["All"]:
            options.dry_run = True
        last = self.api.delete(resource.plural, target.namespace, name, options=options, **delete_arguments(given, request))
        lives_on = self.api.store.get(resource.plural, target.namespace, name)
        if resource.kind in ("Pod", "Service", "ServiceAccount", "Namespace") or (lives_on is not None and not options.dry_run):
            return self._object(request, accepted_form(request), target, last)
        details = {"name": name, "group": resource.group, "kind": resource.plural, "uid": last["metadata"]["uid"]}
        return self._respond(request, Form(), {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                                               "details": {key: value for key, value in details.items() if value}}, warn=resource)

    async def _delete_collection(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource, options, query = target.resource, write_options(request), request.query
        given = await self._body(request, empty=True)
        if given.get("dryRun") == ["All"]:
            options.dry_run = True
        arguments = delete_arguments(given, request)
        items = []
        for obj in self.api.select(resource.plural, target.namespace, labels=query.get("labelSelector"), fields=query.get("fieldSelector")):
            meta = obj["metadata"]
            last = self.api.delete(resource.plural, meta.get("namespace"), meta["name"], options=options, **arguments)
            items.append({key: value for key, value in last.items() if key not in ("kind", "apiVersion")})
        listing = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version,
                   "metadata": {"resourceVersion": str(self.api.store.revision)}, "items": items}
        return self._respond(request, Form(), listing)

    # --- watches ------------------------------------------------------------------------------------------------------------------------

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        query, resource, form = request.query, target.resource, accepted_form(request)
        since = resource_version(query.get("resourceVersion"))
        initial = query.get("sendInitialEvents") == "true"
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        if initial and (query.get("resourceVersionMatch") != "NotOlderThan"):
            raise errors.invalid_object("ListOptions", "meta.k8s.io", "", [errors.not_allowed(
                "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")])
        version = "events.k8s.io/v1" if target.group == "events.k8s.io" else resource.api_version
        watch = Watch(
            self.api.store, resource.plural, self._matcher(target, query), api_version=version, kind=resource.kind,
            since=None if initial or not since else since, mark=initial and bookmarks, bookmarks=bookmarks,
            seconds=number(query, "timeoutSeconds"),
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})
        if resource.plural == "endpoints":
            response.headers["Warning"] = warning(_ENDPOINTS_WARNING)
        response.enable_chunked_encoding()
        await response.prepare(request)
        self._watches.add(watch)
        first = True
        try:
            async for event in watch.events():
                if event is None:
                    if request.transport is None or request.transport.is_closing():
                        break
                    continue
                kind, obj = event
                if kind != "ERROR":
                    obj = self._watched(target, form, kind, obj, query.get("includeObject") or "Metadata", first)
                    first = False
                await response.write(json.dumps({"type": kind, "object": obj}, separators=(",", ":")).encode() + b"\n")
            await response.write_eof()
        except ConnectionResetError:
            return response  # the client has gone: so is the watch
        finally:
            self._watches.discard(watch)
        return response

    @staticmethod
    def _matcher(target: Target, query: Mapping[str, str]) -> Callable[[dict[str, Any]], bool]:
        by_label = selectors.labels(query["labelSelector"]) if query.get("labelSelector") else None
        by_field = selectors.fields(query["fieldSelector"], target.resource) if query.get("fieldSelector") else None
        namespace, name = target.namespace, target.name

        def matches(obj: dict[str, Any]) -> bool:
            meta = obj["metadata"]
            if namespace and meta.get("namespace") != namespace:
                return False
            if name and meta["name"] != name:
                return False
            if by_label and not by_label(meta.get("labels") or {}):
                return False
            return not by_field or by_field(obj)

        return matches

    def _watched(self, target: Target, form: Form, kind: str, obj: dict[str, Any], include: str, first: bool) -> dict[str, Any]:
        if form.shape == "Table":
            if kind == "BOOKMARK":
                return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"], "columnDefinitions": [],
                        "rows": [{"cells": [], "object": obj}] if "annotations" in obj["metadata"] else []}
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return tables.table(target.resource, [obj], meta, include=include, columns=first)
        if form.shape == "PartialObjectMetadata":
            return tables.partial(obj)
        return obj if kind == "BOOKMARK" else self._shown(target, obj)

    # --- bodies and answers -------------------------------------------------------------------------------------------------------------

    async def _body(self, request: web.Request, *, empty: bool = False, as_object: bool = True, yaml: bool = False) -> Any:
        raw = await request.read()
        if not raw and empty:
            return {}
        if request.content_type == "application/vnd.kubernetes.protobuf":
            from . import protobuf

            try:
                return protobuf.decode(raw, schema.kinds())
            except fields.DecodeError as error:
                raise errors.bad_request(f"couldn't decode the request's protobuf body: {error}") from error
        if request.content_type not in ("application/json", "application/yaml", "application/x-yaml", "application/octet-stream",
                                        *PATCH_TYPES):
            raise ApiError(415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: "
                           "application/json, application/yaml, application/vnd.kubernetes.protobuf")
        try:
            value = fields.parse_yaml(raw) if yaml or request.content_type in ("application/yaml", "application/x-yaml") \
                else fields.parse_json(raw)
        except fields.DecodeError as error:
            raise errors.bad_request(f"the object provided is unrecognized (must be of type {'DeleteOptions' if empty else 'a Kubernetes'} "
                                     f"object): couldn't get version/kind; json parse error: {error} ({raw[:60].hex()} ...)"
                                     if as_object else str(error)) from error
        if as_object and not isinstance(value, dict):
            raise errors.bad_request("couldn't get version/kind; json parse error: json: cannot unmarshal "
                                     f"{fields.describe(value)} into Go value of type struct {{ APIVersion string; Kind string }}")
        return value

    async def _decode(self, request: web.Request, target: Target, options: Options) -> dict[str, Any]:
        body, resource = await self._body(request), target.resource
        version = "events.k8s.io/v1" if target.group == "events.k8s.io" else resource.api_version
        kind = body.get("kind") or resource.kind
        given = body.get("apiVersion") or version
        if kind != resource.kind or given != version:
            raise errors.bad_request(f"the API version in the data ({given}) does not match the expected API version ({version})"
                                     if kind == resource.kind else
                                     f'{kind} in version "{given.rpartition("/")[2]}" cannot be handled as a {resource.kind}: '
                                     f"the path serves {resource.plural}")
        struct = schema.structs()["io.k8s.api.events.v1.Event"] if target.group == "events.k8s.io" else schema.struct_of(resource)
        try:
            clean, strict = fields.decode(struct, body)
        except fields.DecodeError as error:
            raise fields.cannot_handle(resource.kind, resource.version, error) from error
        if strict and options.validation == "Strict":
            raise fields.cannot_handle(resource.kind, resource.version, f"strict decoding error: {', '.join(strict)}")
        if strict and options.validation == "Warn":
            options.warnings += strict
        return events.to_core(clean) if target.group == "events.k8s.io" else clean

    @staticmethod
    def _shown(target: Target, obj: dict[str, Any]) -> dict[str, Any]:
        return events.from_core(obj) if target.group == "events.k8s.io" else obj

    def _object(self, request: web.Request, form: Form, target: Target, obj: dict[str, Any], status: int = 200,
                warnings: list[str] | None = None) -> web.StreamResponse:
        if form.shape == "Table":
            meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            answer = tables.table(target.resource, [obj], meta, include=request.query.get("includeObject") or "Metadata")
        elif form.shape == "PartialObjectMetadata":
            answer = tables.partial(obj)
        else:
            answer = self._shown(target, obj)
        return self._respond(request, form, answer, status, warnings, target.resource)

    @staticmethod
    def _respond(request: web.Request, form: Form, answer: dict[str, Any], status: int = 200, warnings: list[str] | None = None,
                 warn: Resource | None = None) -> web.StreamResponse:
        shown = [*(warnings or []), *([_ENDPOINTS_WARNING] if warn is not None and warn.plural == "endpoints" else [])]
        if form.media == "yaml":
            import yaml

            response = web.Response(text=yaml.safe_dump(answer, sort_keys=True), status=status, content_type="application/yaml")
        else:
            response = json_response(answer, status=status)
        for text in dict.fromkeys(shown):
            response.headers.add("Warning", warning(text))
        return response


def _verb(request: web.Request, target: Target | None = None) -> str:
    method = request.method
    if method in ("GET", "HEAD"):
        if target is not None and target.subresource:
            return "get"
        if request.query.get("watch") in ("true", "1"):
            return "watch"
        return "list" if target is not None and target.name is None else "get"
    if method == "DELETE":
        return "deletecollection" if target is not None and target.name is None else "delete"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())
