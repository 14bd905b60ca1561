"""`moectl why`: explains in words why an Expert or a pool is where it is."""

from typing import Annotated

import typer
from rich.console import Console

from moe_client.cli.options import Kubeconfig, Namespace
from moe_client.cluster import Cluster
from moe_client.errors import Forbidden, NotFound
from moe_client.why import why_expert, why_pool
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_proposal import ExpertProposal

EXPERT_WORDS = ("expert", "experts", "exp")
POOL_WORDS = ("pool", "expertpool", "expertpools", "epool")


def why(
    target: Annotated[str, typer.Argument(help="expert/NAME or pool/NAME; NAME alone means an Expert.")],
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Say why an Expert or a pool is where it is, on what evidence, and what to do next."""
    kind, _, name = target.rpartition("/")
    if kind not in ("", *EXPERT_WORDS, *POOL_WORDS):
        raise typer.BadParameter(f"{kind!r} cannot be explained: give expert/NAME or pool/NAME")
    cluster = Cluster(kubeconfig=kubeconfig, namespace=namespace)
    if kind in POOL_WORDS:
        pool = cluster.get(ExpertPool, name)
        experts = [item for item in cluster.all(Expert) if item.spec.pool == name]
        lines = why_pool(pool, experts, _proposals(cluster, pool=name))
    else:
        expert, proposals = cluster.get(Expert, name), _proposals(cluster, expert=name)
        lines = why_expert(expert, cluster.revisions(name), cluster.events(name), proposals)
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False)


def _proposals(cluster: Cluster, **of: str) -> list[ExpertProposal]:
    """Return the proposals; none on a cluster that is older than this kind, or if the user may not read them."""
    try:
        return cluster.proposals(**of)
    except (NotFound, Forbidden):
        return []
