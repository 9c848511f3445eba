"""JupyterHub's part that needs no cluster: the hook against a pretended API, the values of the chart, the files that they name."""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from servicelab.clusters import context

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "jupyterhub"
MOUNTED = "/usr/local/etc/jupyterhub/"


def sources() -> dict[str, str]:
    """The chart's extra files by their mount paths, and the file that README.md's `--set-file` gives each."""
    given = dict(re.findall(r"--set-file hub\.extraFiles\.(\w+)\.stringData=(\S+)", (DEPLOY / "README.md").read_text(encoding="utf-8")))
    files = yaml.safe_load((DEPLOY / "values.yaml").read_text(encoding="utf-8"))["hub"]["extraFiles"]
    assert given.keys() == files.keys()
    return {files[key]["mountPath"]: given[key] for key in files}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hook as the hub has it: these files and no others, not the lab's package."""
    for mounted, source in sources().items():
        target = tmp_path / mounted.removeprefix(MOUNTED)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, target)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("SERVICELAB_CLASS", raising=False)
    yield importlib.import_module("servicelab_hub.hub")
    for name in [name for name in sys.modules if name.startswith("servicelab_hub")]:
        del sys.modules[name]


class PretendedApi:
    """Keeps what is applied; knows one class."""

    def __init__(self, hub, *, policy: int = 200, namespace: dict | None = None, refusing: str = "") -> None:
        self.policy, self.namespace, self.refusing = policy, namespace, refusing
        self.applied: list[dict] = []
        self.real_apply = hub.Api.apply

    async def request(self, method, path, body=None, **params):
        if "validatingadmissionpolicybindings" in path:
            return self.policy, {"message": "not found"}
        if method == "GET":
            return (200, self.namespace) if self.namespace else (404, {"message": "no such namespace"})
        if self.refusing and self.refusing in path:
            return 403, {"message": "forbidden: you may not"}
        self.applied.append(body)
        return 200, body

    async def apply(self, obj):
        return await self.real_apply(self, obj)


def prepare(hub, api, user="Zoë.Müller"):
    return asyncio.run(hub.prepare(api, user, "hub"))


def test_a_new_user_gets_what_a_student_gets_and_an_account_for_the_server(hub):
    api = PretendedApi(hub)
    student = prepare(hub, api)
    assert student.namespace == "student-zoe-muller"
    kinds = [(obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace")) for obj in api.applied]
    assert kinds[0] == ("Namespace", "student-zoe-muller", None)
    assert ("ResourceQuota", "servicelab-class", "student-zoe-muller") in kinds
    assert ("ServiceAccount", "student-zoe-muller", "hub") in kinds
    assert api.applied[0]["metadata"]["annotations"] == {"servicelab.io/student-name": "Zoë.Müller", "servicelab.io/hub-user": "Zoë.Müller"}
    bound = [obj for obj in api.applied if obj["kind"].endswith("Binding")]
    of_server = [obj for obj in bound if obj["metadata"]["name"].endswith("-hub")]
    assert len(of_server) * 2 == len(bound) == 8
    for obj in of_server:
        assert obj["subjects"] == [{"kind": "ServiceAccount", "name": "student-zoe-muller", "namespace": "hub"}]
        assert obj["metadata"]["labels"]["servicelab.io/class"] == "class", "class delete finds it"


def _namespace(user=None, **metadata):
    notes = {"servicelab.io/student-name": "Zoë M.", **({"servicelab.io/hub-user": user} if user else {})}
    return {"metadata": {"name": "student-zoe-muller", "labels": {"servicelab.io/class": "class"}, "annotations": notes, **metadata}}


def test_a_student_of_the_teachers_list_keeps_the_name_on_the_board(hub):
    api = PretendedApi(hub, namespace=_namespace())
    assert prepare(hub, api).name == "Zoë M."
    assert api.applied[0]["metadata"]["annotations"]["servicelab.io/student-name"] == "Zoë M."


@pytest.mark.parametrize(
    ("options", "user", "words"),
    [
        ({"policy": 404}, "zoe-muller", "has no class yet.*servicelab class create"),
        ({"namespace": _namespace(labels={})}, "zoe-muller", "in the cluster already and not the class's"),
        ({"namespace": _namespace("zoe.muller")}, "zoe-muller", "'zoe-muller' and 'zoe.muller' become the same namespace"),
        ({"namespace": _namespace(deletionTimestamp="2026-01-01T00:00:00Z")}, "zoe-muller", "still being deleted"),
        ({}, "王小明", "can't become a namespace's name"),
        ({}, "x" * 60, "can't become a namespace's name"),
        ({"refusing": "resourcequotas"}, "zoe-muller", "ResourceQuota servicelab-class can't be made: forbidden.*rights.yaml"),
    ],
)
def test_refusals_are_told_to_the_user(hub, options, user, words):
    api = PretendedApi(hub, **options)
    with pytest.raises(hub.Refused, match=words) as refused:
        prepare(hub, api, user)
    assert refused.value.jupyterhub_message == str(refused.value)
    if "refusing" not in options:
        assert api.applied == []


def test_the_spawner_gets_the_account(hub, monkeypatch):
    monkeypatch.setattr(hub.Api, "of_this_pod", lambda: PretendedApi(hub))
    spawner = SimpleNamespace(
        user=SimpleNamespace(name="ada"), namespace="hub", service_account=None, log=SimpleNamespace(info=lambda *words: None)
    )
    asyncio.run(hub.pre_spawn(spawner))
    assert spawner.service_account == "student-ada"
    assert spawner.automount_service_account_token is True, "connect() needs the token in the pod"


def test_files_that_the_deployment_names():
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    for words in re.findall(r"^COPY (.+) \S+$", dockerfile, re.M):
        for name in words.split():
            assert (ROOT / name).exists() and name in allowed, name
    values = yaml.safe_load((DEPLOY / "values.yaml").read_text(encoding="utf-8"))
    assert values["singleuser"]["networkPolicy"]["egressAllowRules"]["privateIPs"] is True
    lesson = values["singleuser"]["defaultUrl"].removeprefix("/lab/tree/")
    assert (ROOT / lesson).exists()
    home = re.search(r"HOME=(\S+)", dockerfile)[1]
    assert values["singleuser"]["storage"]["homeMountPath"] == home


def test_the_namespace_of_a_pod_is_told_by_its_account(tmp_path, monkeypatch):
    import base64
    import json

    monkeypatch.setattr(context, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    (tmp_path / "namespace").write_text("hub\n")

    def found(account: str) -> str:
        claims = {"kubernetes.io": {"namespace": "hub", "serviceaccount": {"name": account}}}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        (tmp_path / "token").write_text(f"x.{body}.y")
        return context.InCluster._own_namespace()

    assert found("student-ada") == "student-ada"
    assert found("spring-student-ada") == "spring-student-ada"
    assert found("default") == found("students") == found("student") == "hub"
    (tmp_path / "token").write_text("not a JWT")
    assert context.InCluster._own_namespace() == "hub"
