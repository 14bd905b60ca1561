"""`moectl route`: which Expert a prompt goes to, and why."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from moe_client import gateway
from moe_client.api_key import api_key
from moe_client.cli.options import Kubeconfig, Namespace
from moe_client.cluster import Cluster
from moe_client.tables import bar


def route(
    pool: Annotated[str, typer.Argument(help="Name of the ExpertPool.")],
    prompt: Annotated[str, typer.Argument(help="The text to route.")],
    complete: Annotated[bool, typer.Option("--complete", help="Print the completion, too.")] = False,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            help="File with an API key, if the pool's gateway asks for one. Default: the key in $MOE_API_KEY.",
            show_default=False,
        ),
    ] = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Say which Expert of a pool a prompt goes to, how sure the gateway is, and why."""
    key = api_key(api_key_file)
    cluster = Cluster(kubeconfig=kubeconfig, namespace=namespace)
    console = Console(highlight=False)
    answer = gateway.route(cluster, pool, prompt, key=key)
    sure = "" if answer.confidence is None else f", confidence {answer.confidence:.2f}"
    console.print(f"[bold]{answer.expert}[/bold] by {answer.strategy}{sure}")
    for name, share in sorted(answer.probabilities.items(), key=lambda item: -item[1]):
        console.print(f"  {name:<24} {bar(share)} {share:.2f}")
    if answer.why:
        console.print(answer.why, markup=False)
    if complete:
        console.print(gateway.complete(cluster, pool, prompt, key=key), markup=False)
