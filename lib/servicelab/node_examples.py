"""What a node of one's own would have shown, for a learner who may not enter the nodes: told as an example, never as a result."""

from __future__ import annotations

import re

_EXAMPLES: tuple[tuple[str, str], ...] = (
    (r"curl .*localhost:80\b.*nobody listens", "nobody listens on port 80 of this machine"),
    (r"curl .*%\{http_code\}", "200"),
    (r"curl .*\| *grep title", "<title>Welcome to nginx!</title>"),
    (r"curl .*https://", "curl: (60) SSL certificate problem: self-signed certificate"),
    (r"ip -o (-4 )?addr", "1: lo inet 127.0.0.1/8 … 2: eth0 inet 172.18.0.3/16 …, and no Service's address"),
    (r"nft list map .*service-ips", "10.96.120.7 . tcp . 80 : goto service-…-default/my-nginx/tcp/"),
    (r"nft list table", "table ip kube-proxy { … }"),
)


def example_for(command: str | list[str]) -> str:
    """One line that such a command shows on a node of a cluster of one's own; empty when there is no example.

    Example:
        >>> example_for("curl -s -o /dev/null -w '%{http_code}' http://10.244.1.2")
        '200'
    """
    text = command if isinstance(command, str) else " ".join(map(str, command))
    return next((shown for pattern, shown in _EXAMPLES if re.search(pattern, text)), "")
