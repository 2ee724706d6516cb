"""Fixtures of every room's stories."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pervade.testing.cluster import Cluster, free_octet


@pytest.fixture(scope="session")
def machine() -> None:
    """Skip, with the reason, where no real node can run."""
    if os.geteuid() != 0 or not shutil.which("containerd"):
        pytest.skip("needs root and containerd")


@pytest.fixture
def cluster_of(machine: None, tmp_path: Path) -> Iterator[Callable[[int], Cluster]]:
    """Make a cluster of this test with an octet of its address plan; it is purged afterwards, also on failure."""
    made: list[Cluster] = []

    def make(octet: int) -> Cluster:
        made.append(Cluster(f"t{octet}-{os.getpid()}", octet, tmp_path))
        return made[-1]

    yield make
    for cluster in made:
        cluster.pervade("down", "--name", cluster.name, "--purge", check=False)


@pytest.fixture(scope="module")
def room_cluster(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One two-node cluster that the stories of a file share."""
    octet = free_octet()
    cluster = Cluster(f"t{octet}-{os.getpid()}", octet, tmp_path_factory.mktemp("cluster"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.pervade("down", "--name", cluster.name, "--purge", check=False)
