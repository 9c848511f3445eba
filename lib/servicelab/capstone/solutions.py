"""The commands that mend each fault, for the application at hand; shown and run by the folded solutions of lesson 07."""

from __future__ import annotations

import json
import shlex

from servicelab.capstone.plan import FAULTS, HEALTH, KEY, Plan
from servicelab.errors import LabError


def of(plan: Plan, fault: str) -> list[str]:
    """Shell commands, each a line, that mend one fault.

    Raises:
        LabError: there is no such fault.
    """
    if fault not in FAULTS:
        raise LabError(f"There is no fault {fault!r}; there are {', '.join(FAULTS)}.")
    first, second, third = plan.servers
    secure, keeper, partner = plan.callers[2:]
    if fault == "selector":
        return [f"kubectl set selector service {first.name} app={first.name}"]
    if fault == "port":
        return [_patch(f"service {second.name}", "replace", "/spec/ports/0/targetPort", value=second.port)]
    if fault == "readiness":
        path = "/spec/template/spec/containers/0/readinessProbe/httpGet/path"
        return [_patch(f"deployment {plan.misread}", "replace", path, value=HEALTH)]
    if fault == "secret":
        return [_patch(f"secret {keeper.secret}", "move", f"/data/{KEY}", **{"from": f"/data/{plan.wrong_key}"})]
    if fault == "name":
        where = f"-n {partner.namespace} " if partner.namespace != plan.namespace else ""
        return [f"kubectl {where}set env deployment {partner.name} URL={partner.right_url}"]
    files = f"-keyout $CERTS/{third.name}.key -out $CERTS/{third.name}.crt"
    names = f'-subj "/CN={third.name}" -addext "subjectAltName=DNS:{third.name}"'
    secret = f"kubectl create secret tls {third.secret} --cert=$CERTS/{third.name}.crt --key=$CERTS/{third.name}.key"
    return [
        f"openssl req -x509 -nodes -days 365 -newkey rsa:2048 {files} {names} 2>/dev/null",
        f"{secret} --dry-run=client -o yaml | kubectl replace -f -",
        f"kubectl rollout restart deployment {third.name} {secure.name} {keeper.name}",
    ]


def _patch(what: str, op: str, path: str, **rest: object) -> str:
    return f"kubectl patch {what} --type=json -p {shlex.quote(json.dumps([{'op': op, 'path': path, **rest}]))}"
