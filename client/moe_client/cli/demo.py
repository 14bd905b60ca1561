"""`moectl demo`: from `kubectl apply` to routed answers on this machine, live."""

from typing import Annotated

import typer


def demo(
    name: Annotated[str, typer.Option(help="Name of the small cluster.")] = "demo",
    fresh: Annotated[bool, typer.Option(help="First delete what an earlier demo left.")] = True,
) -> None:
    """Train, judge, serve and route four Experts on a real API server on this machine."""
    # Imported late: the demo needs the small cluster's packages, which a plain client may not have.
    from moe_client.demo.story import tell

    raise typer.Exit(tell(name=name, fresh=fresh))
