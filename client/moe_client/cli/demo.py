"""`moectl demo`: the main job on this machine, live."""

from typing import Annotated

import typer


def demo(
    name: Annotated[str, typer.Option(help="Name of the small cluster.")] = "demo",
    fresh: Annotated[bool, typer.Option(help="Delete what an earlier demo left first.")] = True,
) -> None:
    """Train, judge, serve and route four Experts on a real API server on this machine."""
    # Imported late: the demo needs the small cluster's packages, a plain client does not.
    from moe_client.demo.story import tell

    raise typer.Exit(tell(name=name, fresh=fresh))
