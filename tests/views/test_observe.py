"""Following a cluster through everything that breaks a watch, against an API server whose every answer the test chooses."""

import asyncio
import json
import threading
import types

import pytest
import yaml
from aiohttp import web
from view_objects import pod

from harness import eventually
from servicelab.views.observe import Background, Observer


class Server:
    """A small API server on a loopback port, in a thread: pods that the test sets, watches that it feeds and cuts."""

    def __init__(self, directory):
        self.kubeconfig = directory / "kubeconfig"
        self.pods, self.version, self.lists, self.watches, self.others = {}, 100, 0, [], []
        self.forbidden, self.gone_once = set(), False
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.start()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def start(self):
        self.call(self._start())

    async def _start(self):
        app = web.Application()
        app.router.add_get("/version/", self._version)
        app.router.add_get("/api/v1/{kind:nodes}", self._serve)
        app.router.add_get("/api/v1/namespaces/space/{kind}", self._serve)
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/space/{kind}", self._serve)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        port = self.runner.addresses[0][1]
        self.kubeconfig.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {"token": "t"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        }))  # fmt: skip

    def stop(self):
        self.cut()
        cut, self.others = self.others, []
        for queue in cut:
            self.loop.call_soon_threadsafe(queue.put_nowait, None)
        self.call(self.runner.cleanup())

    def close(self):
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def _version(self, request):
        return web.json_response({"major": "1", "minor": "34", "gitVersion": "v1.34.4"})

    async def _serve(self, request):
        kind = request.match_info["kind"]
        if kind in self.forbidden:
            return web.json_response({"kind": "Status", "code": 403, "reason": "Forbidden", "message": f"{kind} is forbidden"}, status=403)
        items = list(self.pods.values()) if kind == "pods" else []
        if "watch" not in request.query:
            self.lists += kind == "pods"
            return web.json_response({"kind": "List", "metadata": {"resourceVersion": str(self.version)}, "items": items})
        response = web.StreamResponse()
        await response.prepare(request)
        if kind == "pods" and self.gone_once:
            self.gone_once = False
            await response.write(b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n')
            return response
        queue = asyncio.Queue()
        (self.watches if kind == "pods" else self.others).append(queue)
        while (event := await queue.get()) is not None:
            await response.write((json.dumps(event) + "\n").encode())
        return response

    def put(self, obj, event="MODIFIED", *, told=True):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        if event == "DELETED":
            self.pods.pop(obj["metadata"]["name"], None)
        else:
            self.pods[obj["metadata"]["name"]] = obj
        if told:
            self._tell({"type": event, "object": obj})

    def bookmark(self):
        self._tell({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}})

    def cut(self):
        cut, self.watches = self.watches, []  # before they end: the next watch may come at once
        self._tell(None, cut)

    def _tell(self, event, watches=None):
        for queue in list(self.watches if watches is None else watches):
            self.loop.call_soon_threadsafe(queue.put_nowait, event)


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.close()


@pytest.fixture
def observer(server):
    lab = types.SimpleNamespace(
        kubeconfig=server.kubeconfig, namespace="space", cluster=types.SimpleNamespace(kubeconfig=lambda: server.kubeconfig)
    )
    changes = []
    made = Observer(lab, changes.append)
    made.changes = changes
    yield made
    made.stop(60)
    assert not made.running


def names(observer):
    return {seen.name: seen.state for seen in observer.world.pods()}


def following(server, observer, **expected):
    def look():
        assert names(observer) == expected, observer.trouble
        return server.watches

    eventually(look)


def test_it_lists_then_follows_and_bursts_make_one_change(server, observer):
    server.put(pod("a"), told=False)
    observer.start()
    following(server, observer, a="ready")
    before = len(observer.changes)
    for number in range(40):
        server.put(pod(f"b{number}"), "ADDED")
    server.bookmark()
    server.put(pod("a"), "DELETED")
    eventually(lambda: len(names(observer)) == 40 and "a" not in names(observer))
    eventually(lambda: len(observer.changes) > before)
    assert len(observer.changes) - before < 20
    assert observer.trouble == ""


def test_a_version_that_is_too_old_is_cured_by_a_fresh_list(server, observer):
    server.put(pod("a"), told=False)
    server.gone_once = True
    observer.start()
    following(server, observer, a="ready")
    assert server.lists == 2
    assert observer.trouble == ""


def test_a_watch_that_ends_goes_on_from_the_last_version_without_a_list(server, observer):
    server.put(pod("a"), told=False)
    observer.start()
    following(server, observer, a="ready")
    server.cut()
    eventually(lambda: server.watches)
    server.put(pod("b"), "ADDED")
    following(server, observer, a="ready", b="ready")
    assert server.lists == 1


def test_a_restart_at_another_port_is_survived_and_said(server, observer):
    server.put(pod("a"), told=False)
    server.put(pod("b"), told=False)
    observer.start()
    following(server, observer, a="ready", b="ready")
    server.stop()
    eventually(lambda: "does not answer" in observer.trouble)
    server.put(pod("a", deleting=True), told=False)
    server.put(pod("b"), "DELETED", told=False)
    server.start()
    following(server, observer, a="terminating")
    eventually(lambda: observer.trouble == "")


def test_nodes_that_may_not_be_listed_are_no_trouble_but_pods_are(server, observer):
    server.forbidden = {"nodes"}
    server.put(pod("a", node="worker9"), told=False)
    observer.start()
    following(server, observer, a="ready")
    assert observer.trouble == ""
    assert observer.world.nodes() == [("worker9", False)]
    observer.stop(60)
    server.forbidden = {"pods"}
    observer.start()
    eventually(lambda: "may not watch pods" in observer.trouble)


def test_stopping_ends_the_thread_also_before_it_began_and_starting_again_works(server, observer):
    server.put(pod("a"), told=False)
    observer.start()
    observer.stop(60)
    assert not observer.running
    observer.start()
    following(server, observer, a="ready")
    observer.start()
    assert sum(thread.name == "servicelab-view" for thread in threading.enumerate()) == 1


def test_what_ends_a_background_is_handed_over():
    failures = []

    async def fails():
        raise ValueError("the reason")

    background = Background(fails, failures.append)
    background.thread.join(10)
    assert [str(failure) for failure in failures] == ["the reason"]
