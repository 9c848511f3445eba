"""Making a class: can be interrupted anywhere and run again, with the same names or with more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..client import ApiError, Client
from ..errors import ClusterError, LabError, NotAllowed
from . import access, node_steps, policy
from .api import apply, has_rbac, path_of, refused, version_of
from .group import current
from .members import objects_of, shared_objects
from .names import Student
from .roster import ours

AT_ONCE = 8
GONE_SECONDS = 180.0
NEEDED: list[tuple[str, str, str, str | None]] = [
    ("create", "", "namespaces", None),
    ("create", "", "resourcequotas", None),
    ("create", "", "limitranges", None),
    ("create", "", "serviceaccounts", None),
    ("create", "", "serviceaccounts/token", None),
    ("create", "rbac.authorization.k8s.io", "roles", None),
    ("create", "rbac.authorization.k8s.io", "rolebindings", None),
    ("create", "rbac.authorization.k8s.io", "clusterroles", None),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings", None),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicies", None),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicybindings", None),
]


@dataclass
class Made:
    """What came of `create`.

    Attributes:
        files: the kubeconfig of each student.
        kept: students whose kubeconfig was there and good already.
        failed: why it didn't work out, for those with whom it didn't.
    """

    files: dict[Student, Path] = field(default_factory=dict)
    kept: set[Student] = field(default_factory=set)
    failed: dict[Student, str] = field(default_factory=dict)


def refuse_unfit(cluster: Any, client: Client) -> None:
    """Says why this cluster can't hold a class, if it can't.

    Raises:
        ClusterError: no RBAC, or an API server without ValidatingAdmissionPolicies.
        NotAllowed: the teacher lacks rights; names them.
    """
    refuse_pocket(cluster)
    if not has_rbac(client):
        raise ClusterError(f"The cluster {cluster.name!r} has no RBAC, so nothing would keep students apart. A class needs one that has.")
    version = version_of(client)
    if version < policy.OLDEST:
        raise ClusterError(
            f"The cluster is Kubernetes {version[0]}.{version[1]}, and a class needs {policy.OLDEST[0]}.{policy.OLDEST[1]} or newer: "
            "its rules for students' pods are ValidatingAdmissionPolicies."
        )
    if missing := refused(client, NEEDED):
        raise NotAllowed(
            "You may not make a class in this cluster. These rights are missing: "
            + ", ".join(missing)
            + ". Ask whoever runs the cluster for them (cluster-admin has all), or use a cluster of your own: --cluster kind."
        )


def refuse_pocket(cluster: Any) -> None:
    """Raises ClusterError on a pocket cluster."""
    if cluster.kind == "pocket":
        raise ClusterError(
            "The pocket cluster has no RBAC: every student could change every other's things, so it holds no class. Use a real "
            "cluster: servicelab class create --cluster kind (Docker on a strong machine) or --cluster context:NAME (one of yours)."
        )


def create(
    cluster: Any,
    students: list[Student],
    *,
    out: Path | None = None,
    server: str | None = None,
    hours: float = access.VALID_HOURS,
    with_node_steps: bool | None = None,
    step: Callable[[str], None] = lambda text: None,
    done: Callable[[Student], None] = lambda student: None,
) -> Made:
    """Makes everything that these students need, and leaves other students of the class as they are.

    Args:
        cluster: a kind or context cluster that is up.
        students: whom to add, or to make whole again.
        out: directory of the kubeconfigs; default in the lab's state directory.
        server: URL at which students reach the API server, when it isn't the teacher's.
        hours: how long tokens are to be valid.
        with_node_steps: make (True) or remove (False) the pods for node steps; None leaves them as they are.
        step: told what is being done.
        done: told each student that is ready.

    Returns:
        Made: also when some students failed; run it again then.

    Raises:
        ClusterError, NotAllowed: this cluster can't hold a class, or not by this teacher.
        LabError: a namespace of a student's name is not the class's. Nothing was changed then.
    """
    refuse_pocket(cluster)
    teacher = cluster.kubeconfig()
    client = Client(teacher)
    try:
        step("asking the cluster what it can do, and what you may")
        refuse_unfit(cluster, client)
        where = access.folder(cluster, out)
        spaces = [current().space, *(student.namespace for student in students)]
        step("looking for namespaces that are not the class's")
        _free_of_others(client, spaces, step)
        step("making what all students share")
        for obj in [*shared_objects(*node_steps.present(client)), *policy.policies()]:
            apply(client, obj)
        if with_node_steps is not None:
            node_steps.make(client, step) if with_node_steps else node_steps.remove(client)
            for obj in shared_objects(*node_steps.present(client)):
                apply(client, obj)
        step("making the students' namespaces")
        made = _each(client, students, where, access.server_entry(teacher, server), hours, done)
        ready = next((student for student in students if student in made.files), None)
        if ready:
            step("making sure that the rules for pods hold")
            _rules_hold(client, ready.namespace)
        return made
    finally:
        client.close()


def _free_of_others(client: Client, names: Iterable[str], step: Callable[[str], None]) -> None:
    """Raises LabError where a namespace is someone else's; waits for those of ours that are still being deleted."""
    there = {found["metadata"]["name"]: found for found in client.list("namespaces")}
    foreign = [name for name in names if name in there and not ours(there[name])]
    if foreign:
        raise LabError(
            f"Nothing was made: {'this namespace is' if len(foreign) == 1 else 'these namespaces are'} in the cluster already, and not "
            f"made by a class: {', '.join(foreign)}. The class doesn't touch what it didn't make. Write other short names "
            "(`short-name: Name` in the list), or remove the namespace yourself if it is yours."
        )
    going = [name for name in names if name in there and there[name]["metadata"].get("deletionTimestamp")]
    if going:
        step(f"waiting for an earlier class to be gone: {len(going)} namespaces")
        wait_gone(client, going)


def wait_gone(client: Client, names: Iterable[str], done: Callable[[str], None] = lambda name: None) -> None:
    """Waits until these namespaces are gone. One list a second for all of them together, however many there are.

    Raises:
        ClusterError: for three minutes not one of them went; says what the first of them still hold.
    """
    left = set(names)
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        there = {found["metadata"]["name"]: found for found in client.list("namespaces")}
        for name in sorted(left - there.keys()):
            left.discard(name)
            done(name)
            deadline = time.monotonic() + GONE_SECONDS
        if not left:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    words = []
    for name in sorted(left)[:3]:
        conditions = there[name].get("status", {}).get("conditions") or []
        words.append(f"{name}: " + "; ".join(c["message"] for c in conditions if c.get("status") == "True" and c.get("message")))
    raise ClusterError(f"{len(left)} namespaces are still being deleted: {' | '.join(words)}. Look again in a minute, or run this again.")


def _each(
    client: Client, students: list[Student], where: Path, entry: dict[str, Any], hours: float, done: Callable[[Student], None]
) -> Made:
    made = Made()

    def one(student: Student) -> bool:
        account = {}
        for obj in objects_of(student):
            applied = _apply_patiently(client, obj)
            if obj["kind"] == "ServiceAccount":
                account = applied
        file = access.file_of(where, student)
        if file.exists() and access.still_good(file, account["metadata"]["uid"], entry["server"]):
            return True
        access.write(file, student, entry, access.new_token(client, student.namespace, hours))
        return False

    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    work = {pool.submit(one, student): student for student in students}
    try:
        for future in as_completed(work):
            student = work[future]
            try:
                if future.result():
                    made.kept.add(student)
                made.files[student] = access.file_of(where, student)
            except LabError as error:
                made.failed[student] = str(error)
            done(student)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # an interrupted run ends with whole students, as far as it came
    return made


def _apply_patiently(client: Client, obj: dict[str, Any]) -> dict[str, Any]:
    """Applies, and tries again for a moment where the API server says that it is busy or a cache of its is behind."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return apply(client, obj)
        except ApiError as error:
            if error.code not in (409, 429, 500, 503, 504) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _rules_hold(client: Client, namespace: str) -> None:
    """A privileged pod is refused by dry run: policies take a moment until every API server knows them.

    Raises:
        ClusterError: such a pod would be let through.
    """
    probe = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "servicelab-probe", "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "none", "securityContext": {"privileged": True}}]},
    }
    path = path_of(probe).rpartition("/")[0]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client.request("POST", path, probe, params={"dryRun": "All"})
        except (ApiError, NotAllowed) as error:
            if "may not be privileged" in str(error):
                return
            if "serviceaccount" not in str(error):  # the namespace's own ServiceAccount comes a moment after it
                raise
        time.sleep(0.3)
    raise ClusterError(
        "The cluster still lets privileged pods into the students' namespaces, though the class's policies are there. "
        "Don't hand out the kubeconfigs; see kubectl describe validatingadmissionpolicies."
    )


def renew(cluster: Any, student: Student, *, out: Path | None = None, server: str | None = None, hours: float = access.VALID_HOURS) -> Path:
    """A new kubeconfig for one student; all earlier ones of that student stop working, since their ServiceAccount is made anew.

    Returns:
        Path: the file.
    """
    from .api import delete

    refuse_pocket(cluster)
    teacher = cluster.kubeconfig()
    client = Client(teacher)
    try:
        account = next(obj for obj in objects_of(student) if obj["kind"] == "ServiceAccount")
        delete(client, path_of(account))
        for obj in objects_of(student):
            _apply_patiently(client, obj)
        file = access.file_of(access.folder(cluster, out), student)
        return access.write(file, student, access.server_entry(teacher, server), access.new_token(client, student.namespace, hours))
    finally:
        client.close()
