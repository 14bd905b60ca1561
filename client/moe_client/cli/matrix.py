"""`moectl matrix`: bits per byte of each served Expert on each domain."""

from typing import Annotated

import typer
from rich.console import Console

from moe_client.cli.options import Kubeconfig, Namespace
from moe_client.cluster import Cluster
from moe_client.tables import matrix_table
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision


def matrix(
    pool: Annotated[str, typer.Argument(help="Name of the ExpertPool.")],
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Show the matrix of a pool: held-out bits per byte, one row per Expert, one column per domain."""
    cluster = Cluster(kubeconfig=kubeconfig, namespace=namespace)
    console = Console()
    console.print(matrix_table(promoted_revisions(cluster, pool)))
    filled = cluster.get(ExpertPool, pool).status.matrix
    if filled is not None and filled.digest is not None:
        console.print(
            f"full matrix of {filled.time}: {filled.path} in the pool's store ({filled.digest[:19]})",
            soft_wrap=True,
        )


def promoted_revisions(cluster: Cluster, pool: str) -> dict[str, ExpertRevision]:
    """Return the promoted revision of every Expert of a pool, by the Expert's name."""
    revisions = {item.metadata.name: item for item in cluster.all(ExpertRevision)}
    experts = (item for item in cluster.all(Expert) if item.spec.pool == pool)
    return {
        item.metadata.name: revisions[item.status.current_revision]
        for item in experts
        if item.status.current_revision in revisions
    }
