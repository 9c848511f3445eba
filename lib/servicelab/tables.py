"""The API server's tables as pandas DataFrames: the same columns that ``kubectl get`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from .client import Client

_NOISE = ("nominated node", "readiness gates")


def from_table(table: dict[str, Any], *, wide: bool = True) -> pd.DataFrame:
    """A ``meta.k8s.io/v1`` Table as a DataFrame, columns in lower case, sorted by the first one.

    Args:
        table: the server's answer.
        wide: also the columns that kubectl shows with ``-o wide`` (priority above 0).

    Example:
        >>> from_table({"columnDefinitions": [{"name": "Name", "priority": 0}], "rows": [{"cells": ["web"]}]})
          name
        0  web
    """
    import pandas as pd

    columns = [(i, c["name"].lower()) for i, c in enumerate(table.get("columnDefinitions") or []) if wide or not c.get("priority")]
    columns = [(i, name) for i, name in columns if name not in _NOISE]
    rows = [[row["cells"][i] for i, _ in columns] for row in table.get("rows") or []]
    frame = pd.DataFrame(rows, columns=[name for _, name in columns])
    return frame.sort_values(frame.columns[0], ignore_index=True) if len(frame.columns) else frame


def endpoints(client: Client, namespace: str, service: str) -> pd.DataFrame:
    """One row for each endpoint in the Service's EndpointSlices: who gets its requests, and whether now.

    Columns: ``pod``, ``address``, ``port`` (as ``name:number``, or the number alone), ``ready``, ``serving``, ``terminating``, ``node``.
    """
    import pandas as pd

    rows = []
    for s in client.list("endpointslices", namespace, selector=f"kubernetes.io/service-name={service}"):
        ports = ",".join(f"{p['name']}:{p['port']}" if p.get("name") else str(p.get("port")) for p in s.get("ports") or [])
        for endpoint in s.get("endpoints") or []:
            conditions, target = endpoint.get("conditions") or {}, endpoint.get("targetRef") or {}
            for address in endpoint.get("addresses") or []:
                rows.append({
                    "pod": target.get("name", ""), "address": address, "port": ports,
                    # the API's own rule: absent means ready and serving, and not terminating
                    "ready": conditions.get("ready", True) is not False, "serving": conditions.get("serving", True) is not False,
                    "terminating": bool(conditions.get("terminating")), "node": endpoint.get("nodeName", ""),
                })  # fmt: skip
    frame = pd.DataFrame(rows, columns=["pod", "address", "port", "ready", "serving", "terminating", "node"])
    return frame.sort_values(["pod", "address"], ignore_index=True)
