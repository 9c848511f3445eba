"""Checks of lesson 07, the capstone: one for each kind of fault, and one for the whole.

Each looks at its own layer only, so that one fault hides no other: whether a program listens is asked at the pods themselves, whether a
certificate holds too. None says in its first hint what is to be done.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from servicelab import capstone, conditions
from servicelab.capstone.calls import held_up, newest
from servicelab.capstone.objects import TRUSTED
from servicelab.capstone.plan import KEY, Caller, Plan, Server
from servicelab.checks.framework import Missing, checker
from servicelab.checks.looks import condition, endpoints, find, is_ready, live_pods, trouble

ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


def plan_of(lab) -> Plan:
    """The plan of the application in the learner's namespace.

    Raises:
        Missing: there is none.
    """
    shop = capstone.find(lab)
    if shop is None:
        raise Missing(f"there is no application in namespace {lab.namespace} yet", "lab.break_it() builds one.", settles=False)
    return shop.plan


def service_of(lab, server: Server) -> dict:
    """The Service of a server.

    Raises:
        Missing: it was deleted.
    """
    service = find(lab, "services", server.name)
    if service is None:
        raise Missing(
            f"there is no Service {server.name} any more",
            "Callers know it by its name. What was behind the name?",
            f"It had port {server.service_port}, and its pods listen on {server.port}.",
            f"kubectl expose deployment {server.name} --port={server.service_port} --target-port={server.port}",
            settles=False,
        )
    return service


def pods_of(lab, server: Server) -> list[dict]:
    """The pods of a server's Deployment.

    Raises:
        Missing: it has none.
    """
    pods = live_pods(lab, f"app={server.name}")
    if not pods:
        there = find(lab, "deployments", server.name) is not None
        raise Missing(
            f"there are no pods of {server.name}",
            "Without a pod nobody can answer: kubectl get deployments",
            f"kubectl scale deployment {server.name} --replicas={server.replicas}"
            if there
            else "Its Deployment is gone; lab.break_it(seed=…) builds everything anew.",
        )
    return pods


@checker(lesson=7, title="the Secret has the key that its pod needs")
def secret_is_complete(lab) -> str:
    """The caller with the password runs, and the password that it took from its Secret is accepted."""
    plan = plan_of(lab)
    caller, server = plan.callers[3], plan.servers[2]
    pod = newest(live_pods(lab, f"app={caller.name}"))
    if pod is None:
        raise Missing(f"there is no pod of {caller.name}", f"kubectl scale deployment {caller.name} --replicas=1")
    name = pod["metadata"]["name"]
    if why := held_up(pod):
        secret = find(lab, "secrets", caller.secret)
        if secret is None:
            raise Missing(
                f"pod {name}: {why}; the Secret {caller.secret} is gone",
                f"What did it hold? kubectl get deployment {caller.name} -o yaml | grep -A3 secretKeyRef",
                f"Its login and password have to be what {server.name} knows, and there only a hash is kept. With the old one lost, "
                f"both sides need a new one: the Secret {server.users} holds the line login:{{PLAIN}}password under htpasswd.",
                "lab.break_it(seed=…) builds everything anew.",
                settles=False,
            )
        there = ", ".join(sorted(secret.get("data") or {})) or "nothing"
        raise Missing(
            f"pod {name} does not run: {why}",
            "The image is there, the node has room, and yet its container isn't created. Read the events to the end: what is looked for?",
            f"kubectl describe pod {name} | tail -5; kubectl describe secret {caller.secret} shows its keys (not their values): {there}",
            f"Give the value its right key: kubectl edit secret {caller.secret}, where the line under data: must begin with {KEY}:",
        )
    users = find(lab, "secrets", server.users)
    ready = [p for p in live_pods(lab, f"app={server.name}") if is_ready(p)]
    if users is None or not ready:
        what = f"there is no Secret {server.users}" if users is None else f"no pod of {server.name} is ready"
        raise Missing(
            f"{what}, so the password can't be tried", f"kubectl get pods -l app={server.name}", f"kubectl get secret {server.users}"
        )
    url = f"https://{ready[0]['status']['podIP']}:{server.port}{urlsplit(caller.right_url).path}"
    _, status = _curl(lab, name, caller, ["-k", url], login=True)
    if status == 401:
        raise Missing(
            f"{caller.name} runs, but {server.name} does not accept its password",
            "The key is there now. And its value?",
            "The right value was in this Secret from the beginning, under another key. base64 is how it is written, not a part of it.",
            f"kubectl get secret {caller.secret} -o yaml, and when it is right: kubectl rollout restart deployment {caller.name}",
        )
    if status != 200:
        got = f"status {status}" if status else "no answer"
        raise Missing(f"{caller.name} gets {got} from a pod of {server.name}", f"kubectl logs deployment/{server.name}")
    return f"{caller.name} runs, and {server.name} accepts its password"


@checker(lesson=7, title="the pods of all servers are ready, and are asked whether they are")
def servers_are_ready(lab) -> str:
    """All pods of the three Deployments are ready, and each still has a readiness probe."""
    plan = plan_of(lab)
    for server in plan.servers:
        for pod in pods_of(lab, server):
            name = pod["metadata"]["name"]
            probe = pod["spec"]["containers"][0].get("readinessProbe")
            if probe is None:
                deployment = find(lab, "deployments", server.name) or {"spec": {"template": pod}}
                asks = deployment["spec"]["template"]["spec"]["containers"][0].get("readinessProbe") is not None
                raise Missing(
                    f"the pods of {server.name} have no readiness probe any more",
                    "Now every pod counts as ready as soon as it runs, whether or not its program is. Is that what you want?",
                    "Don't take the question away: ask the right one.",
                    f"kubectl edit deployment {server.name}: readinessProbe: {{httpGet: {{path: /healthz, port: {server.port}}}}}",
                    settles=asks,  # mended by now: this pod is of the version before, and goes
                )
            if is_ready(pod):
                continue
            if held_up(pod):
                raise Missing(trouble(pod), f"The events at the end tell why: kubectl describe pod {name}", f"kubectl logs {name}")
            asked = probe.get("httpGet") or probe.get("tcpSocket") or {}
            raise Missing(
                f"{name} runs, and {(condition(pod, 'Ready') or {}).get('message', 'is not ready')}",
                "It runs, so its program is well? Somebody says that it isn't. Who asks, what, and what is the answer?",
                f"kubectl describe pod {name}: the line Readiness says what is asked, the events what came back. "
                f"And: kubectl exec {name} -- cat /etc/nginx/conf.d/default.conf",
                f"It is asked for {asked.get('path', asked)}, and knows only /healthz: kubectl edit deployment {server.name}",
            )
    return "all pods of the 3 Deployments are ready, each by its probe"


@checker(lesson=7, title="each Service finds its pods")
def services_find_pods(lab) -> str:
    """The EndpointSlices of each of the three Services list the pods of the Deployment behind it, and no other pods."""
    plan = plan_of(lab)
    for server in plan.servers:
        service = service_of(lab, server)
        own = pods_of(lab, server)
        # The newest pod of a rollout may have no address yet; the pods that have one must be in.
        addressed = {pod["metadata"]["name"] for pod in own if pod["status"].get("podIP")}
        listed = {endpoint.pod for endpoint in endpoints(lab, server.name)}
        # A pod that ends stays in the slice until it has gone: it is still its Service's own.
        others = {pod["metadata"]["name"] for pod in lab.list("pods") if (pod["metadata"].get("labels") or {}).get("app") != server.name}
        selector = service["spec"].get("selector") or {}
        told = ",".join(f"{key}={value}" for key, value in selector.items()) or "nothing"
        compare = f"kubectl describe service {server.name} | grep Selector; kubectl get pods --show-labels"
        if foreign := sorted(listed & others):
            raise Missing(
                f"the Service {server.name} sends to pods that aren't its own, such as {foreign[0]}",
                "It finds pods, but which? Look at whose they are.",
                f"Which label have its own pods, and no others? {compare}",
                f"kubectl set selector service {server.name} app={server.name}",
            )
        if not listed:
            raise Missing(
                f"the Service {server.name} has no endpoint, and {len(own)} pods of {server.name} exist",
                "A Service keeps no list of pods. What does it have instead, and who makes the list from it?",
                f"It looks for {told}. Compare letter by letter: {compare}",
                f"kubectl set selector service {server.name} app={server.name}",
            )
        if left_out := sorted(addressed - listed):
            raise Missing(
                f"the Service {server.name} leaves out the pod {left_out[0]}",
                "Some of its pods have all the labels that it asks for, some have not.",
                compare,
                f"kubectl set selector service {server.name} app={server.name}",
            )
    return "each of the 3 Services lists its own pods, and no others"


@checker(lesson=7, title="each Service sends to a port where somebody listens")
def ports_lead_to_programs(lab) -> str:
    """Each Service has the port that callers use, and a connection to its pods' target port is accepted, asked at the pods themselves."""
    plan = plan_of(lab)
    client = _running(lab, plan.callers[0])
    for server in plan.servers:
        ports = service_of(lab, server)["spec"].get("ports") or []
        port = next((p for p in ports if p["port"] == server.service_port), None)
        if port is None:
            heard = ", ".join(str(p["port"]) for p in ports) or "no port"
            raise Missing(
                f"the Service {server.name} listens on {heard}, and its callers ask for port {server.service_port}",
                "A Service has two ports in each line: the one for callers, and the one at the pods. Which is which?",
                f"lab.view.port_map({server.name!r})",
                f"kubectl edit service {server.name}: port: {server.service_port}, targetPort: {server.port}",
                settles=False,
            )
        for pod in pods_of(lab, server):
            target = _target(port, pod)
            where = f"lab.view.port_map({server.name!r})"
            if target is None:  # perhaps a pod of the version before: it goes by itself
                raise Missing(
                    f"the Service {server.name} sends to a port named {port['targetPort']}, and its pods have no port of that name",
                    "A targetPort may be a name; then the pods must have a port with this name.",
                    f"kubectl get deployment {server.name} -o yaml | grep -A3 ports:",
                    _retarget(server, ports.index(port)),
                )
            address = pod["status"].get("podIP")
            if not address or held_up(pod):
                raise Missing(trouble(pod), f"kubectl describe pod {pod['metadata']['name']}")
            scheme = "https" if server.tls else "http"
            if _curl(lab, client, plan.callers[0], ["-k", f"{scheme}://{address}:{target}/"])[0] in (7, 28, 35):
                raise Missing(
                    f"the Service {server.name} sends to port {target} of its pods, and there nobody takes the connection",
                    "Follow a packet to its end: it has reached a pod. Who is to take it there?",
                    f"{where} shows where it is sent. Where does nginx listen? kubectl describe configmap {server.name}-config",
                    _retarget(server, ports.index(port)),
                )
    return "each of the 3 Services sends to a port on which its pods take connections"


@checker(lesson=7, title="every name that is called is known")
def names_are_known(lab) -> str:
    """Each caller calls a name, not an address, and DNS knows the name where the caller is; the last one's leads to the right Service."""
    plan = plan_of(lab)
    for caller in plan.callers:
        pod = newest(live_pods(lab, f"app={caller.name}") if caller.namespace == lab.namespace else _there(lab, caller))
        if pod is None:
            raise Missing(f"there is no pod of {caller.name} in namespace {caller.namespace}", f"kubectl get pods -n {caller.namespace}")
        if held_up(pod):
            if caller.secret:
                continue  # another fault, which has its own check
            describe = f"kubectl describe pod -n {caller.namespace} -l app={caller.name}"
            raise Missing(f"pod {pod['metadata']['name']}: {held_up(pod)}", describe)
        url = next((e.get("value", "") for e in pod["spec"]["containers"][0].get("env") or [] if e["name"] == "URL"), "")
        host, inside = urlsplit(url).hostname or "", f"-n {caller.namespace} " if caller.namespace != lab.namespace else ""
        if ADDRESS.fullmatch(host):
            raise Missing(
                f"{caller.name} calls an address, {host}",
                "It works today. And when the Service is made anew?",
                "A Service's name stays. Which of its names is known where the caller is?",
                f"kubectl {inside}set env deployment {caller.name} URL={caller.right_url}",
                settles=False,
            )
        # Whether anybody answers is of no interest here, so a second is time enough.
        code, _ = _curl(lab, pod["metadata"]["name"], caller, ["-k", url], seconds=2)
        service = service_of(lab, plan.server(caller.server))
        # Where DNS takes its time, curl gives up before it has said no: so a wrong name is looked up in any case.
        right = url == caller.right_url
        met = "" if right or code == 6 else _address(lab, pod["metadata"]["name"], caller, host)
        if code == 6 or not (right or met):
            raise Missing(
                f"{caller.name} in namespace {caller.namespace} calls {url}, and there DNS does not know {host}",
                "The same name may be known in one place and not in another. Where does this caller live, and where the Service?",
                f"kubectl {inside}exec deploy/{caller.name} -- cat /etc/resolv.conf; its line search is what a short name is tried with.",
                f"The name needs its namespace: {service['metadata']['name']}.{service['metadata']['namespace']}. The caller takes its URL "
                "from an environment variable: kubectl set env deployment …",
            )
        if not right and met != service["spec"].get("clusterIP"):
            raise Missing(
                f"{host} leads {caller.name} to {met}, which isn't the address of the Service {caller.server}",
                f"It should reach {caller.server} in namespace {lab.namespace}: kubectl get services",
                f"kubectl {inside}set env deployment {caller.name} URL={caller.right_url}",
            )
    return f"each of the {len(plan.callers)} callers calls a name that is known where it is"


@checker(lesson=7, title="the certificate is for the name that is called")
def certificate_fits(lab) -> str:
    """The caller that speaks TLS accepts what the server's pods serve, under the Service's name, with verification switched on."""
    plan = plan_of(lab)
    caller, server = plan.callers[2], plan.servers[2]
    deployment = find(lab, "deployments", caller.name) or {}
    if re.search(r"\s(-\w*k\w*|--insecure)\s", json.dumps(deployment.get("spec", {}))):
        raise Missing(
            f"{caller.name} does not verify any certificate now (curl -k)",
            "It talks to anybody who answers, now. Lesson 05 has a word for that.",
            "Let it verify, and give the server a certificate that stands it.",
            f"kubectl rollout undo deployment {caller.name}",
            settles=False,
        )
    pod = _running(lab, caller)
    make = (
        f'openssl req -x509 -nodes -days 365 -newkey rsa:2048 … -addext "subjectAltName=DNS:{server.name}", kubectl create secret tls '
        f"{server.secret} … --dry-run=client -o yaml | kubectl replace -f -, kubectl rollout restart deployment {server.name} "
        f"{caller.name} {plan.callers[3].name}"
    )
    for each in pods_of(lab, server):
        if not is_ready(each):
            raise Missing(trouble(each), f"kubectl describe pod {each['metadata']['name']}")
        there = f"{server.name}:{server.port}:{each['status']['podIP']}"
        said = _said(lab, pod, caller, ["--cacert", TRUSTED, "--resolve", there, f"https://{server.name}:{server.port}/"])
        if "no alternative certificate subject name" in said or "does not match" in said:
            raise Missing(
                f"{caller.name} refuses the certificate of {server.name}: {_complaint(said)}",
                "It trusts the signer; the date is right. What else does a client compare?",
                f"Look for whom it was made: lab.view.certificate({server.secret!r}, {server.name!r})",
                make,
            )
        if said and not said.startswith("curl: (60)"):
            raise Missing(f"a pod of {server.name} does not shake hands: {_complaint(said)}", f"kubectl logs {each['metadata']['name']}")
        if said:
            raise Missing(
                f"{caller.name} refuses the certificate of {server.name}: {_complaint(said)}",
                "The name isn't the trouble any more. Which certificate does the client trust, and which one does the server serve?",
                "Both take it from one Secret, as a file. When was the file written, and when did nginx read it?",
                f"kubectl rollout restart deployment {server.name} {caller.name} {plan.callers[3].name}",
            )
    return f"{caller.name} accepts the certificate of {server.name}"


@checker(lesson=7, title="all connections work")
def shop_works(lab) -> str:
    """Every caller got status 200 by its latest two calls, and every node sends the next ones to the pods that are there now."""
    shop = capstone.find(lab)
    plan = plan_of(lab)
    calls = shop.calls(rounds=2)
    if failing := [call for call in calls if not call.works]:
        told = "; ".join(f"{call.caller.name} calls {call.url}: {call.words}" for call in failing)
        raise Missing(
            f"{len(calls) - len(failing)} of {len(calls)} connections work. {told}",
            "Take one of them, and go through lab.view.debugging_tree() from the top.",
            "The checks of the six kinds of faults, further up, each look at one layer alone.",
        )
    for server in plan.servers:
        # Rules that still lead to a pod of the version before would make one of the next calls fail.
        state = conditions.look_at_service(lab, lab.namespace, server.name)
        if not state.done:
            raise Missing(f"the Service {server.name} {state.words}", f"kubectl describe service {server.name}")
    return f"all {len(plan.callers)} connections work"


def _there(lab, caller: Caller) -> list[dict]:
    return lab.list("pods", f"app={caller.name}", caller.namespace)


def _running(lab, caller: Caller) -> str:
    """The name of a caller's pod that runs.

    Raises:
        Missing: none does.
    """
    pod = newest(live_pods(lab, f"app={caller.name}"))
    if pod is None or held_up(pod):
        what = f"pod {pod['metadata']['name']}: {held_up(pod)}" if pod else f"there is no pod of {caller.name}"
        raise Missing(what, f"kubectl describe pod -l app={caller.name}", f"kubectl scale deployment {caller.name} --replicas=1")
    return pod["metadata"]["name"]


def _curl(lab, pod: str, caller: Caller, options: list[str], *, login: bool = False, seconds: int = 3) -> tuple[int, int]:
    """Ask from a caller's pod: curl's exit code, and the HTTP status (0 without one)."""
    words = " ".join(f"'{option}'" for option in options)
    user = '-u "$LOGIN:$PASSWORD" ' if login else ""
    command = f"curl -s -o /dev/null --max-time {seconds} -w '%{{exitcode}} %{{http_code}}' {user}{words}; true"
    said = lab.run_in_pod(pod, command, namespace=caller.namespace)
    found = re.search(r"(\d+) (\d{3})", said)
    if found is None:
        raise Missing(f"curl in pod {pod} says: {said or 'nothing'}", f"kubectl exec {pod} -- curl --version")
    return int(found[1]), int(found[2])


def _said(lab, pod: str, caller: Caller, options: list[str]) -> str:
    """curl's complaint, when it is asked from a caller's pod; empty when it has none."""
    return lab.run_in_pod(pod, ["curl", "-sS", "-o", "/dev/null", "--max-time", "3", *options], namespace=caller.namespace)


def _complaint(said: str) -> str:
    return said.splitlines()[0].split(") ", 1)[-1].rstrip(".")


def _address(lab, pod: str, caller: Caller, host: str) -> str:
    """The address that a name has where a caller is; empty when it has none."""
    # nslookup takes a name with a dot as it is, where a program's resolver tries the search list first: so ask for each name it would try.
    tried = [f"{host}.{end}." for end in (f"{caller.namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local")] + [f"{host}."]
    said = lab.run_in_pod(pod, "; ".join(f"nslookup -type=a '{name}'" for name in tried) + "; true", namespace=caller.namespace)
    return next(iter(re.findall(r"^Name:.*\nAddress(?: \d+)?:\s+([\d.]+)", said, re.MULTILINE)), "")


def _target(port: dict, pod: dict) -> int | None:
    """The number of the port at a pod to which a Service's port leads; None when it is a name that the pod doesn't have."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    declared = [p for container in pod["spec"]["containers"] for p in container.get("ports") or []]
    return next((p["containerPort"] for p in declared if p.get("name") == target), None)


def _retarget(server: Server, place: int) -> str:
    patch = [{"op": "replace", "path": f"/spec/ports/{place}/targetPort", "value": server.port}]
    return f"kubectl patch service {server.name} --type=json -p '{json.dumps(patch)}'"
