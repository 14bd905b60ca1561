"""`moectl get`: the Experts of a namespace, with bars for progress."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from moe_client.cli.options import Kubeconfig, Namespace
from moe_client.cluster import Cluster
from moe_client.tables import experts_table
from moe_formats.resources.expert import Expert


def get(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Update the table until Ctrl-C.")] = False,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """List Experts: phase, progress, time left, score, targets."""
    cluster = Cluster(kubeconfig=kubeconfig, namespace=namespace)
    console = Console()
    experts = cluster.all(Expert)
    if not experts and not watch:
        console.print(
            f"No Experts in namespace {cluster.namespace!r}. Try: kubectl apply -f examples/01-first-pool/"
        )
        return
    if not watch:
        console.print(experts_table(experts, width=console.width))
        return
    with Live(experts_table(experts, width=console.width), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(experts_table(cluster.all(Expert), width=console.width), refresh=True)
