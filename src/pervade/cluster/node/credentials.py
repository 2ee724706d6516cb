"""The cluster's certificates and the kubeconfig of each of its processes."""

from __future__ import annotations

from pervade.cluster.plan import Plan
from pervade.kube import kubeconfig


def server(plan: Plan) -> str:
    """The API server as processes of the host reach it."""
    return f"https://127.0.0.1:{plan.api_port}"


def ensure(plan: Plan) -> None:
    """Make what is missing; 0.1 s when nothing is."""
    # Imports `cryptography`; only `up` pays for it.
    from pervade.cluster.apiserver.auth.pki import ensure_pki

    ensure_pki(
        plan.pki,
        api_addresses=[plan.api_address, plan.kubernetes_address],
        nodes={n.name: n.address for n in plan.nodes},
        cluster_domain=plan.cluster_domain,
    )
    plan.kubeconfig("admin").parent.mkdir(parents=True, exist_ok=True)
    people = {"admin": "admin", "controllers": "controllers", "relay": f"services-{plan.nodes[0].name}"}
    for node in plan.nodes:
        for who in (f"kubelet-{node.name}", f"services-{node.name}"):
            people[who] = who
    for who, certificate in people.items():
        kubeconfig.write(
            plan.kubeconfig(who), context=plan.name, json=who != "admin", **parts(plan, certificate)
        )


def parts(plan: Plan, certificate: str) -> dict[str, str]:
    """The arguments of kubeconfig.write and kubeconfig.merge for the holder of `certificate`."""
    return {
        "server": server(plan),
        "ca": (plan.pki / "ca.crt").read_text(),
        "certificate": (plan.pki / f"{certificate}.crt").read_text(),
        "key": (plan.pki / f"{certificate}.key").read_text(),
    }
