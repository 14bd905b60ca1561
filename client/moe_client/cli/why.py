"""`moectl why`: explains in words why an Expert or a pool is where it is."""

from typing import Annotated

import typer
from rich.console import Console

from moe_client.cli.options import Kubeconfig, Namespace
from moe_client.cluster import Cluster
from moe_client.why import why_expert, why_pool
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool

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
        lines = why_pool(pool, [item for item in cluster.all(Expert) if item.spec.pool == name])
    else:
        lines = why_expert(cluster.get(Expert, name), cluster.revisions(name), cluster.events(name))
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False)
