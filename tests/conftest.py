"""Fixtures for all tests; see ``harness.py``."""

from __future__ import annotations

import os

import pytest

from harness import Kube, TestCluster, shared_cluster


def pytest_addoption(parser) -> None:
    parser.addoption("--screenshots", metavar="DIR", help="keep the pictures that the browser tests take of every lesson")


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", "pocket: makes sense on the pocket cluster only")
    config.addinivalue_line("markers", "kind: makes sense on a kind cluster only")


def pytest_collection_modifyitems(config, items) -> None:
    here = os.environ.get("SERVICELAB_TEST_CLUSTER") or "pocket"
    for item in items:
        only = {name for name in ("pocket", "kind") if item.get_closest_marker(name)}
        if only and here not in only:
            item.add_marker(pytest.mark.skip(reason=f"for {' or '.join(sorted(only))} only; these tests run on {here}"))


@pytest.fixture(scope="session")
def cluster(request) -> TestCluster:
    """The cluster of this worker, up until its last test."""
    return shared_cluster(request.config)


@pytest.fixture(scope="module")
def kube(cluster) -> Kube:
    """A namespace of a random name for the tests of one module."""
    yield from _namespace(cluster)


@pytest.fixture
def fresh(cluster) -> Kube:
    """A namespace of a random name for one test that can't share."""
    yield from _namespace(cluster)


def _namespace(cluster: TestCluster):
    namespace = Kube(cluster)
    namespace.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}})
    try:
        # Pods are refused until the namespace's ServiceAccount is there.
        namespace.wait(lambda: namespace.kubectl("get", "serviceaccount", "default", check=False).returncode == 0)
        yield namespace
    finally:
        namespace.delete()
