"""What the machine lacks is named with the fix, by the same list for `up` and `doctor`."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from pervade.base.errors import OperatorError
from pervade.cluster import plan as plans
from pervade.cluster.node import checks
from pervade.cluster.node.checks import Finding


def test_a_missing_package_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = shutil.which
    monkeypatch.setattr(shutil, "which", lambda n: None if n in ("containerd", "ctr", "nft") else known(n))
    found = [f for f in checks.packages(plans.make()) if f.level == "error"]
    assert found[0].seen == "missing: containerd, nftables"
    assert found[0].fix == "apt-get install --no-install-recommends containerd nftables"


def test_images_not_built_names_the_verb_that_builds_them(tmp_path: Path) -> None:
    (found,) = checks.images(plans.make(cache_dir=str(tmp_path)))
    assert found.level == "error"
    assert found.fix == f"pervade images build --cache-dir {tmp_path}"


def test_a_port_that_somebody_listens_on_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (found,) = checks.ports(plans.make(api_port=port, run_root=str(tmp_path)))
        assert f"127.0.0.1:{port} is taken" in found.seen
        assert "--api-port" in found.fix


def test_a_range_that_the_machine_routes_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ranges = [checks.ipaddress.ip_network("10.77.3.0/24"), checks.ipaddress.ip_network("192.0.2.0/24")]
    monkeypatch.setattr(checks, "_host_ranges", lambda: iter([(r, "a route") for r in ranges]))
    (found,) = checks.addresses(plans.make(run_root=str(tmp_path)))
    assert found.seen == "10.77.0.0/16 overlaps 10.77.3.0/24 (a route)"
    assert found.fix == "pervade up --pod-cidr OTHER-RANGE"


def test_a_second_cluster_needs_other_addresses_and_another_port(tmp_path: Path) -> None:
    first = plans.make(name="a", run_root=str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "plan.json").write_bytes(checks.msgspec.json.encode(first))
    same = list(checks.addresses(plans.make(name="b", run_root=str(tmp_path))))
    assert {f.check for f in same} == {"addresses", "ports"}
    assert sum(f.check == "addresses" for f in same) == 3
    other = plans.make(
        name="b",
        run_root=str(tmp_path),
        api_port=7443,
        fabric_cidr="172.31.10.0/24",
        pod_cidr="10.78.0.0/16",
        service_cidr="10.97.0.0/16",
    )
    assert not list(checks.addresses(other))
    assert not list(checks.addresses(plans.make(name="a", run_root=str(tmp_path))))


def test_ranges_of_one_plan_may_not_overlap(tmp_path: Path) -> None:
    plan = plans.make(pod_cidr="10.96.0.0/16", run_root=str(tmp_path))
    assert any("overlap" in f.seen for f in checks.addresses(plan))


def test_state_on_overlayfs_and_another_file_system_than_the_cache_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checks, "_filesystem_of", lambda _path: "overlay")
    plan = plans.make(state_root=str(tmp_path), cache_dir="/proc/cache")
    seen = " ".join(f.seen for f in checks.storage(plan))
    assert "lies on overlay" in seen
    assert "different file systems" in seen


def test_errors_together_make_one_refusal_and_warnings_none() -> None:
    checks.refuse([Finding("a", "ok", ""), Finding("b", "warning", "odd", "mend")])
    with pytest.raises(OperatorError) as caught:
        checks.refuse([Finding("a", "error", "no x", "get x"), Finding("b", "error", "no y", "get y")])
    assert "no x; no y" in caught.value.seen
    assert "get x" in caught.value.fix
    assert "get y" in caught.value.fix
