"""The lessons in reading order, and every object that they make.

`Lab.reset()` deletes what stands in `MADE` and nothing else: an object that a lesson makes and that is not listed here stays behind,
and a test of the notebooks finds it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """One notebook.

    Attributes:
        number: its place in the reading order, from 0.
        notebook: its file in `notebooks/`.
        title: its name, as the progress board shows it.
        original: the section of the original document that it teaches, in the document's own words; empty where there is none.
        minutes: how long a learner takes.
    """

    number: int
    notebook: str
    title: str
    original: str
    minutes: int


LESSONS = (
    Lesson(0, "00-start-here.ipynb", "Start here", "", 10),
    Lesson(1, "01-pod-networking.ipynb", "Pod networking", "用于连接容器的Kubernetes模型 · 将Pod暴露给集群", 20),
    Lesson(2, "02-services.ipynb", "Services", "创建 Service", 25),
    Lesson(3, "03-environment-variables.ipynb", "Environment variables", "访问Service · 环境变量", 15),
    Lesson(4, "04-dns.ipynb", "DNS", "访问Service · DNS", 20),
    Lesson(5, "05-tls.ipynb", "TLS", "Service 安全", 25),
    Lesson(6, "06-external-exposure.ipynb", "External exposure", "保留Service", 20),
    Lesson(7, "07-capstone.ipynb", "Capstone", "", 45),
)

# (kind as kubectl names it, name), owners first so that their pods go with them.
MADE: tuple[tuple[str, str], ...] = (
    # 00
    ("pod", "hello"),
    ("pod", "client"),
    # 01
    ("deployment", "my-nginx"),
    ("deployment", "host-port"),
    ("pod", "curl"),
    ("pod", "two-in-one"),
    ("pod", "twins"),
    # 02
    ("service", "my-nginx"),
    ("service", "my-nginx-alt"),
    ("service", "my-nginx-typo"),
    ("service", "named-port"),
    ("pod", "named-port"),
    # 03
    ("service", "backend"),
    ("pod", "frontend"),
    ("pod", "quiet"),
    # 04
    ("service", "late"),
    ("service", "my-nginx-headless"),
    ("service", "web"),
    ("service", "website"),
    # 05
    ("secret", "nginxsecret"),
    ("configmap", "nginxconfigmap"),
    ("deployment", "curl-deployment"),
    ("configmap", "lesson-ca"),
    # 06
    ("service", "my-nginx-web"),
)


def made_by_lessons(namespace: str) -> list[tuple[str, str]]:
    """What the lessons may have made in this namespace: (kind, name), Services first, so that nothing is sent to pods that end.

    Example:
        >>> made_by_lessons("default")[0][0]
        'service'
    """
    return sorted(dict.fromkeys(MADE), key=lambda made: made[0] != "service")
