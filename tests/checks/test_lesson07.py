"""The capstone: each fault is found by its own check and by no other, mended by its solution, and all of it can be removed again."""

from __future__ import annotations

import json
import random
import subprocess
from types import SimpleNamespace

import pytest

from harness import eventually
from servicelab import capstone, certificates
from servicelab.capstone import calls, objects
from servicelab.capstone.plan import FAULTS, HEALTH, THEMES, make, misspelt, other_namespace
from servicelab.checks import Missing, check, lesson07
from servicelab.checks.framework import transient_errors
from servicelab.errors import LabError, NotFound
from servicelab.views import board as boards
from servicelab.views import debugging_tree

CHECKS = {
    "secret": ("secret_is_complete", "does not run: CreateContainerConfigError", "where the line under data"),
    "readiness": ("servers_are_ready", "runs, and", "knows only /healthz"),
    "selector": ("services_find_pods", "has no endpoint", "kubectl set selector"),
    "port": ("ports_lead_to_programs", "nobody takes the connection", "targetPort"),
    "name": ("names_are_known", "there DNS does not know", "needs its namespace"),
    "certificate": ("certificate_fits", "refuses the certificate", "subjectAltName"),
}


# -- the plan: no cluster


def test_a_seed_gives_one_plan_and_another_seed_another():
    assert make(3, "default") == make(3, "default")
    plans = {(p.theme.what, p.selector, p.target_port, p.probe_path, p.wrong_key, p.wrong_name) for p in (make(s, "x") for s in range(200))}
    assert len(plans) > 190
    assert {plan[0] for plan in plans} == {theme.what for theme in THEMES}


@pytest.mark.parametrize("second", [True, False])
def test_every_plan_is_broken_where_it_says_so_and_nowhere_else(second):
    for seed in range(100):
        plan = make(seed, "class-7", second=second)
        first, second_server, third = plan.servers
        assert len({s.name for s in plan.servers} | {c.name for c in plan.callers}) == 8
        assert plan.selector != first.name and plan.target_port != second_server.port and plan.wrong_name != third.name
        assert plan.wrong_key != objects.KEY and plan.misread in (first.name, second_server.name)
        whole = make(seed, "class-7", second=second, faults=())
        assert whole.servers == plan.servers and [c.name for c in whole.callers] == [c.name for c in plan.callers]
        assert all(caller.url == caller.right_url for caller in whole.callers)
        assert [c.url == c.right_url for c in plan.callers] == [True] * 4 + [False]
        met = {fault for caller in plan.callers for fault in plan.in_the_way(caller)}
        assert met == set(FAULTS), "every fault keeps some caller from its answer"
        assert not any(whole.in_the_way(caller) for caller in whole.callers)
        assert {o["metadata"]["namespace"] for o in objects.of(plan)} == ({"class-7", "class-7-partner"} if second else {"class-7"})


def test_no_fault_is_named_where_the_learner_looks_first():
    plan = make(5, "default")
    told = plan.text()
    for wrong in (plan.selector, str(plan.target_port), plan.probe_path, plan.wrong_key, plan.wrong_name):
        assert wrong not in told


def test_misspelt_names_and_second_namespaces_can_be_names():
    for seed in range(50):
        for word in ("front", "till", "catalogue"):
            assert misspelt(word, random.Random(seed)) != word
    assert len(other_namespace("n" * 63)) <= 63 and not other_namespace("a" * 54 + "-" + "b" * 8).startswith("a" * 54 + "--")


def test_what_is_no_fault_is_refused():
    with pytest.raises(ValueError, match="no such fault: gremlins; there are selector"):
        make(1, "default", faults=["gremlins"])
    with pytest.raises(LabError, match="no fault 'gremlins'"):
        capstone.Shop(None, make(1, "default")).solution("gremlins")


# -- the board: no cluster


def test_the_board_says_what_works_and_draws_every_call():
    plan = make(14, "default")
    seen = [
        calls.Call(plan.callers[0], plan.callers[0].url, 0, 200),
        calls.Call(plan.callers[1], plan.callers[1].url, 7, said="Failed to connect"),
        calls.Call(plan.callers[2], plan.callers[2].url, 60, said="SSL: no alternative certificate subject name"),
        calls.Call(plan.callers[3], plan.callers[3].url, 0, 401),
        calls.Call(plan.callers[4], plan.callers[4].url, calls.NOT_RUNNING, said="CreateContainerConfigError"),
    ]
    scene = boards.draw(plan, seen)
    assert scene.text.splitlines()[0] == "1 of 5 connections work"
    for words in ("✓ visitor", "nobody takes the connection", "the certificate is refused", "status 401", "CreateContainerConfigError"):
        assert words in scene.text
    assert scene.svg().count("class='square'") + scene.svg().count('class="square"') >= 5
    assert "\n" not in scene.svg()
    assert all(question.asks in debugging_tree.draw().text for question in debugging_tree.QUESTIONS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("http://front: status 200, exit code 0 ", (0, 200, "status 200")),
        ("http://front: status 000, exit code 6 Could not resolve host: front", (6, 0, "the name is not known")),
        ("https://x/y: status 401, exit code 0", (0, 401, "status 401")),
        ("https://x: status 000, exit code 56 Recv failure", (56, 0, "curl's exit code 56")),
    ],
)
def test_a_line_of_a_caller_is_understood(line, expected):
    found = calls.LINE.match(line)
    call = calls.Call(make(1, "x").callers[0], found["url"], int(found["code"]), int(found["status"]), found["error"])
    assert (call.code, call.status, call.words) == expected


def test_a_pod_of_the_version_before_may_lack_a_named_port_for_a_while(monkeypatch):
    plan = make(14, "default")
    port = {"port": plan.servers[0].service_port, "targetPort": "http"}
    looks = iter(["old", "new"])

    def pods_of(lab, server):
        ports = [{"name": "http", "containerPort": server.port}] if next(looks, "new") == "new" else []
        return [{"metadata": {"name": "p"}, "status": {"podIP": "10.244.1.5"}, "spec": {"containers": [{"name": "c", "ports": ports}]}}]

    made = {"plan_of": lambda lab: plan, "service_of": lambda lab, server: {"spec": {"ports": [port | {"port": server.service_port}]}}}
    made |= {"pods_of": pods_of, "_running": lambda *_: "caller", "held_up": lambda pod: "", "_curl": lambda *_: (0, "200")}
    for name, function in made.items():
        monkeypatch.setattr(lesson07, name, function)
    result = check.ports_lead_to_programs.result(SimpleNamespace(patience=30))
    assert result.passed, result.message


@pytest.mark.parametrize(
    ("codes", "latest", "of_two"),
    [
        ([], "it has not called yet", "it has not called yet"),
        ([200], "status 200", "it has only begun to call"),
        ([401, 200], "status 200", "status 401"),
        ([401, 200, 200], "status 200", "status 200"),
    ],
)
def test_of_several_rounds_the_one_that_failed_is_told(codes, latest, of_two):
    plan = make(14, "default")
    lines = [f"http://x: status {code}, exit code 0 " for code in codes]
    running = {"status": {"containerStatuses": [{"state": {"running": {}}}]}, "spec": {"containers": [{}]}}
    pods = [{"metadata": {"name": c.name, "labels": {"app": c.name}, "creationTimestamp": ""}, **running} for c in plan.callers]
    client = SimpleNamespace(list=lambda *_: pods, logs=lambda *_, tail: "\n".join(lines[-tail:]))
    for rounds, words in ((1, latest), (2, of_two)):
        found = calls.read(SimpleNamespace(client=client), plan, rounds=rounds)
        assert [call.words.removeprefix("caller not running: ") for call in found] == [words] * 5


# -- in a cluster


@pytest.fixture
def shop(asked):
    """A lab whose applications are removed afterwards, with the second namespace."""
    certificates.private_directory(asked.lab)
    yield asked
    capstone.remove(asked.lab)
    certificates.remove_private_directory(asked.lab)


def mend(asked, fault: str) -> None:
    for command in asked.lab.shop().solution(fault):
        subprocess.run(command, shell=True, check=True, capture_output=True, timeout=60)


def verdicts(asked) -> dict[str, bool]:
    """Which of the six checks pass, looking once; once more where a pod went between being listed and being entered."""

    def look(name: str) -> list[bool]:
        try:
            return [bool(getattr(check, name).look(asked.lab))]
        except Missing:
            return [False]
        except transient_errors() as error:
            raise AssertionError(f"check.{name} could not look: {error}") from error

    return {fault: eventually(lambda name=name: look(name))[0] for fault, (name, _, _) in CHECKS.items()}


def assert_mended(asked, mended: set[str], words: str) -> None:
    """The checks of what is mended pass, once the pods of the versions before have gone; those of the other faults never do."""

    def settled() -> bool:
        found = verdicts(asked)
        if early := {fault for fault, passed in found.items() if passed} - mended:
            pytest.fail(f"{words}: checks of {early} pass, too")
        assert mended == {fault for fault, passed in found.items() if passed}, words
        return True

    eventually(settled)


def test_each_fault_is_found_by_its_check_alone_and_mended_alone(shop, monkeypatch):
    seed = random.randrange(10_000)
    order = random.sample(FAULTS, len(FAULTS))
    shop.lab.break_it(seed)
    mended: set[str] = set()
    for fault in order:
        name, saying, hint = CHECKS[fault]
        shop.fails(name, saying=saying, hint=hint)
        with monkeypatch.context() as patch:
            patch.setenv("SERVICELAB_PATIENCE", "0.1")
            first = getattr(check, name).result(shop.lab)
        assert first.level == 1 and not any(word in first.hint for word in ("kubectl set", "kubectl edit", "kubectl patch"))
        shop.fails("shop_works", saying="of 5 connections work", hint="debugging_tree")
        mend(shop, fault)
        mended.add(fault)
        for each in mended:
            shop.passes(CHECKS[each][0])
        assert_mended(shop, mended, f"seed {seed}, mended {order[: len(mended)]}")
    shop.passes("shop_works")


def test_an_application_with_one_fault_has_no_other(shop):
    fault, seed = random.choice(FAULTS), random.randrange(10_000)
    made = shop.lab.break_it(seed, faults=[fault])
    assert_mended(shop, set(FAULTS) - {fault}, f"seed {seed}, {fault}")
    kept = {caller.name for caller in made.plan.callers if made.plan.in_the_way(caller)}

    def fail() -> bool:
        failing = {call.caller.name for call in made.calls() if not call.works}
        assert failing == kept, f"seed {seed}, {fault}"
        return True

    eventually(fail)  # a call of the others may have taken too long on a busy machine

    # The board follows by itself, as long as somebody looks.
    board = shop.lab.board()
    board.begin()
    try:
        assert "5 of 5" not in board.text()
        mend(shop, fault)

        def followed() -> bool:
            return "5 of 5 connections work" in board.text() and not board.notice

        shop.lab.wait_for(followed)
    finally:
        background = board._background
        board.close()
    background.thread.join(60)  # the look that is under way ends first
    assert not background.alive


def _replace(path: str, value: str) -> str:
    return json.dumps([{"op": "replace", "path": path, "value": value}], separators=(",", ":"))


def test_all_six_at_once_then_wrong_turns_then_nothing_is_left(shop):
    lab = shop.lab
    shop.fails("shop_works", saying="there is no application", hint="lab.break_it()")
    with pytest.raises(NotFound, match=r"lab\.break_it"):
        lab.board()
    made = lab.break_it(14)
    assert not any(verdicts(shop).values())
    assert "0 of 5 connections work" in lab.board().text()
    keeper, partner = made.plan.callers[3], made.plan.callers[4]
    front, catalogue, payment = made.plan.servers

    # Ways to make it worse, or to make it look right.
    shop.run(f"set selector service {front.name} app={payment.name}")
    shop.fails("services_find_pods", saying="pods that aren't its own", hint="Which label have its own pods")
    shop.run(f"delete service {front.name}")
    shop.fails("services_find_pods", saying=f"there is no Service {front.name}", hint="kubectl expose")
    shop.run(f"expose deployment {front.name} --port=8123 --target-port={front.port}")
    shop.fails("ports_lead_to_programs", saying="listens on 8123", hint="two ports")
    shop.run(f"delete service {front.name}", f"expose deployment {front.name} --port=80 --target-port={front.port}")
    take_away = '[{"op":"remove","path":"/spec/template/spec/containers/0/readinessProbe"}]'
    shop.run(f"patch deployment {made.plan.misread} --type=json -p {take_away}")
    shop.fails("servers_are_ready", saying="no readiness probe any more", hint="ask the right one")
    shop.run(f"rollout undo deployment {made.plan.misread}")
    shop.run(f'patch secret {keeper.secret} -p {{"stringData":{{"{objects.KEY}":"guessed"}}}}')
    shop.fails("secret_is_complete", saying="does not accept its password", hint="another key")
    address = lab.service(catalogue.name).ip
    shop.run(f"-n {partner.namespace} set env deployment {partner.name} URL=http://{address}")
    shop.fails("names_are_known", saying=f"calls an address, {address}", hint="A Service's name stays")
    shop.run(f"-n {partner.namespace} set env deployment {partner.name} URL=http://{payment.name}.{lab.namespace}")
    shop.fails("names_are_known", saying="isn't the address of the Service", hint="URL=")
    shop.kube.create(certificates.self_signed(payment.name, key_type="ec").secret("another"))
    shop.run(f"patch deployment {payment.name} --type=json -p {_replace('/spec/template/spec/volumes/1/secret/secretName', 'another')}")
    shop.fails("certificate_fits", saying="self", hint="kubectl rollout restart")
    shop.run(f"rollout undo deployment {payment.name}", "delete secret another")

    # And back: the wrong value goes, the right one is where it was.
    shop.run(f'patch secret {keeper.secret} --type=json -p [{{"op":"remove","path":"/data/{objects.KEY}"}}]')
    for fault in FAULTS:
        mend(shop, fault)
    # Mending may have restarted it just now, and kubectl refuses a second time within the same second.
    eventually(lambda: shop.run(f"rollout restart deployment {keeper.name}") or True)
    for name, _, _ in CHECKS.values():
        shop.passes(name)
    shop.passes("shop_works")
    eventually(lambda: "5 of 5 connections work" in lab.board().text())  # a caller started anew has not called yet

    lab.reset(quiet=True)
    for kind in ("deployments", "services", "secrets", "pods"):
        assert not lab.list(kind), kind
    assert [c["metadata"]["name"] for c in lab.list("configmaps")] in ([], ["kube-root-ca.crt"])
    with pytest.raises(NotFound):
        lab.get("namespaces", other_namespace(lab.namespace))


def test_pods_of_the_version_before_are_waited_for(shop):
    made = shop.lab.break_it(14, faults=["readiness"])
    probe = "/spec/template/spec/containers/0/readinessProbe"
    shop.run(f'patch deployment {made.plan.misread} --type=json -p [{{"op":"remove","path":"{probe}"}}]')
    shop.kube.rollout(made.plan.misread)
    shop.fails("servers_are_ready", saying="no readiness probe any more", hint="ask the right one")
    server = next(server for server in made.plan.servers if server.name == made.plan.misread)

    def probes() -> list[dict | None]:
        found = shop.kube.list("pods", f"app={server.name}")
        return [pod["spec"]["containers"][0].get("readinessProbe") for pod in found if "deletionTimestamp" not in pod["metadata"]]

    for seconds in range(4, 16):  # names follow from the template: until one of the old pods is the first that the check looks at
        slow = {"httpGet": {"path": HEALTH, "port": server.port}, "initialDelaySeconds": seconds}
        value = json.dumps(slow, separators=(",", ":"))
        shop.run(f'patch deployment {server.name} --type=json -p [{{"op":"add","path":"{probe}","value":{value}}}]')

        def come(seconds=seconds) -> list[dict | None]:
            now = probes()
            assert any(one and one["initialDelaySeconds"] == seconds for one in now)
            return now

        if shop.kube.wait(come)[0] is None:
            break
    else:
        pytest.fail("no old pod came first")
    shop.passes("servers_are_ready")  # the pods without a probe serve on until the new ones are ready


def test_a_pod_that_ends_is_still_its_servers(shop):
    lab = shop.lab
    made = lab.break_it(14, faults=[])
    server, caller = made.plan.servers[0], made.plan.callers[0]
    old = shop.kube.list("pods", f"app={server.name}")[0]
    name, address = old["metadata"]["name"], old["status"]["podIP"]
    # nginx ends politely: not before it has answered this request, of which half has come
    half = f"(printf 'GET / '; sleep 50) | curl -s telnet://{address}:{server.port}"
    with shop.kube.popen("exec", f"deployment/{caller.name}", "--", "sh", "-c", half) as request:
        try:
            eventually(lambda: f":{server.port:04X} " in shop.kube.exec(name, "sh", "-c", "grep ' 01 ' /proc/net/tcp"))
            shop.run(f"delete pod {name} --wait=false")
            shop.kube.rollout(server.name)
            shop.passes("services_find_pods")
            assert shop.kube.get("pod", name)["metadata"]["deletionTimestamp"], "it was to be there while the check looked"
        finally:
            request.kill()


def test_without_a_second_namespace_the_name_is_broken_in_another_way(shop, monkeypatch):
    lab = shop.lab
    other = other_namespace(lab.namespace)
    lab.kubectl("create", "namespace", other)  # somebody else's
    try:
        made = lab.break_it(21, faults=["name"])
        assert "isn't ours" in repr(made) and made.plan.other == ""
        shop.fails("names_are_known", saying="DNS does not know", hint="resolv.conf")
        with monkeypatch.context() as slow:  # on a busy machine curl gives up before DNS has said no
            slow.setattr(lesson07, "_curl", lambda *_, **__: (28, 0))
            shop.fails("names_are_known", saying="DNS does not know", hint="resolv.conf")
        mend(shop, "name")
        shop.passes("names_are_known")
        shop.passes("shop_works")
        # As one who has come back: what is there is kept, unless another one is asked for.
        monkeypatch.setenv("SERVICELAB_HEADLESS", "0")
        again = lab.break_it()
        assert again.plan == made.plan and "as you left it" in repr(again)
        shop.passes("shop_works")
        lab.reset(quiet=True)
        assert lab.get("namespaces", other)["status"]["phase"] == "Active", "another's namespace must stay"
    finally:
        lab.kubectl("delete", "namespace", other, "--wait=false")
