"""Send real requests at a chosen rate, and learn from the pods' own access logs which of them answered. No widget here.

Each request opens a connection of its own, as a new client would, and carries a number in its User-Agent, which nginx writes into its
access log. So who answered is what the servers say, not what the client guesses; a pod that logs nothing is counted as unknown.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import kr8s

from servicelab import kubectl, settings
from servicelab.errors import LabError
from servicelab.views.curl import reason_of
from servicelab.views.observe import Observer, connect, words_of
from servicelab.views.world import World

if TYPE_CHECKING:
    from servicelab.lab import Lab

ANSWER_SECONDS = 3  # a request without an answer is given up after this long
UNWATCHED_SECONDS = 15  # the same where nobody watches: a name whose first packet to the DNS got lost is asked again after 5 seconds


@dataclass
class Tally:
    """What came of the requests so far.

    Attributes:
        sent: How many were sent.
        by_pod: How many each pod answered, by its uid.
        names: The pods' (name, address), by uid; those that have gone meanwhile, too.
        failed: How many got no answer, by curl's reason.
        codes: HTTP status by request number, of those that were answered.
    """

    sent: int = 0
    by_pod: Counter[str] = field(default_factory=Counter)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    codes: dict[int, int] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """How many were answered."""
        return len(self.codes)

    @property
    def unknown(self) -> int:
        """How many were answered by nobody knows whom (yet): no log has them."""
        return len(self.codes.keys() - self.owners.keys())

    def answer(self, number: int, code: int, error: str) -> None:
        """Take what the client says about one request."""
        if code:
            self.codes[number] = code
        else:
            self.failed[error or "no answer"] += 1

    def logged(self, number: int, uid: str) -> bool:
        """Take what a pod's log says about one request; False if it was known already."""
        if number in self.owners:
            return False
        self.owners[number] = uid
        self.by_pod[uid] += 1
        return True


class Traffic:
    """Requests from a client pod to a URL, until a number of them or a time is over.

    Args:
        lab: Whose cluster and namespace.
        service: Whose pods may answer.
        url: Where the requests go.
        client: The pod that sends them; it needs a shell and curl.
        rate: Gives the requests per second that are wanted now.
        total: How many to send in all.
        changed: Called in this thread after each change with the world, the tally, and what is new:
            ``(number, pod uid or "", HTTP status or 0)``.
    """

    def __init__(
        self, lab: Lab, service: str, url: str, client: str, *, rate: Callable[[], float], total: int,
        changed: Callable[[World, Tally, list[tuple[int, str, int]]], None],
    ) -> None:  # fmt: skip
        self._lab, self._service, self._url, self._client = lab, service, url, client
        self._rate, self._total, self._changed = rate, total, changed
        self._mark = f"servicelab-{secrets.token_hex(4)}"
        self.tally = Tally()
        self.observer = Observer(lab, lambda world: changed(world, self.tally, []))
        self._readers: dict[str, asyncio.Task] = {}
        self._progress: asyncio.Event

    async def run(self) -> None:
        """Send, and read the logs, until all is sent and accounted for.

        Raises:
            LabError: The client pod can't send; says why.
        """
        self._progress = asyncio.Event()
        api = await connect(self._lab)
        helpers = [asyncio.ensure_future(self.observer.run()), asyncio.ensure_future(self._attend(api))]
        try:
            await self._send()
            await self._account()
        finally:
            for task in [*helpers, *self._readers.values()]:
                task.cancel()
            await asyncio.gather(*helpers, *self._readers.values(), return_exceptions=True)

    async def _send(self) -> None:
        # One exec for all: the shell in the client pod starts a curl for each number that it reads, and doesn't wait for it.
        form = r"%{http_code} %{errormsg}\n"
        patience = UNWATCHED_SECONDS if settings.headless() else ANSWER_SECONDS
        curl = f"curl -sk -o /dev/null --max-time {patience} -A {self._mark}/$n"
        script = f'while read n; do {curl} -w "$n {form}" {shlex.quote(self._url)} </dev/null & done; wait'
        options = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        command = [kubectl.find(), f"--kubeconfig={self._lab.kubeconfig}", f"--namespace={self._lab.namespace}"]
        process = await asyncio.create_subprocess_exec(*command, "exec", "-i", self._client, "--", "sh", "-c", script, **options)
        assert process.stdin and process.stdout and process.stderr
        answers = asyncio.ensure_future(self._read_answers(process.stdout))
        complaints = asyncio.ensure_future(process.stderr.read())
        try:
            for number in range(1, self._total + 1):
                if answers.done():
                    break
                process.stdin.write(f"{number}\n".encode())
                await process.stdin.drain()
                self.tally.sent = number
                await asyncio.sleep(1 / max(self._rate(), 0.1))
            process.stdin.close()
            await answers
            code = await process.wait()
        except (BrokenPipeError, ConnectionResetError):
            code = await process.wait()
        finally:
            for task in (answers, complaints):
                if not task.done() and process.returncode is None:
                    task.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = (await complaints).decode(errors="replace")
        if code:
            why = " ".join(line for line in said.splitlines() if not line.startswith("Defaulted"))[:300]
            raise LabError(f"The client pod {self._client} can't send any more (after {self.tally.sent} requests): {why}")
        if "not found" in said and not self.tally.codes:
            raise LabError(f"There is no curl in the pod {self._client}: {said.strip()[:200]}. Use one with curl, such as curlimages/curl.")

    async def _read_answers(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            found = re.match(rb"(\d+) (\d{3}) (.*)", line)
            if found:
                number, code, error = int(found[1]), int(found[2]), found[3].decode(errors="replace")
                self.tally.answer(number, code, reason_of(error))
                self._tell(number, "", code)

    def _tell(self, number: int, uid: str, code: int) -> None:
        self._progress.set()
        fresh = [(number, uid, code)] if uid or not code else []  # an answer is drawn once its pod is known; a failure at once
        self._changed(self.observer.world, self.tally, fresh)

    async def _attend(self, api: Any) -> None:
        """Follow the log of each pod that the Service has, or gets while this runs."""
        first = True
        while True:
            world = self.observer.world
            service = world.service(self._service)
            for endpoint in world.endpoints(self._service) if service else []:
                pod = world.objects["pods"].get((self._lab.namespace, endpoint.pod_name))
                if pod is None or endpoint.pod_uid in self._readers:
                    continue
                self.tally.names[endpoint.pod_uid] = (endpoint.pod_name, endpoint.address)
                self._readers[endpoint.pod_uid] = asyncio.ensure_future(self._read_log(api, endpoint.pod_uid, pod))
            await asyncio.sleep(0.1 if first else 0.2)
            first = not self._readers

    async def _read_log(self, api: Any, uid: str, pod: dict) -> None:
        name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
        pattern = re.compile(rf"{self._mark}/(\d+)")
        since: dict[str, str] = {"sinceSeconds": "30"}
        while True:
            try:
                parameters = {"follow": "true", "container": container, **since}
                url = f"pods/{name}/log"
                async with api.call_api(
                    "GET", version="v1", namespace=self._lab.namespace, url=url, params=parameters, stream=True, timeout=None
                ) as response:
                    async for line in response.aiter_lines():
                        for number in pattern.findall(line):
                            if self.tally.logged(int(number), uid):
                                self._tell(int(number), uid, 200)
            except kr8s.ServerError as error:
                if error.response is not None and error.response.status_code == 404:
                    return  # the pod is gone, and its log with it
            except Exception as error:
                self.observer.say("logs", f"The log of {name} broke off ({words_of(error)}); reading it again.")
            await asyncio.sleep(0.3)

    async def _account(self) -> None:
        """Wait until the logs have told of every answer, or nothing more comes."""
        deadline = time.monotonic() + settings.patience()
        while self.tally.unknown and time.monotonic() < deadline:
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), max(deadline - time.monotonic(), 0.01))
            except asyncio.TimeoutError:  # the built-in TimeoutError only from Python 3.11 on
                return
