"""The command line `moectl`: which commands there are."""

import sys

import typer

from moe_client.cli import demo, get, local, matrix, proposals, route, why
from moe_client.errors import ClientError
from moe_local.errors import LocalClusterError

app = typer.Typer(
    help="Look at, decide about and use the Experts of a cluster, or of the small cluster on this machine.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.command(name="get")(get.get)
app.command(name="why")(why.why)
app.command(name="route")(route.route)
app.command(name="matrix")(matrix.matrix)
app.command(name="proposals")(proposals.proposals)
app.command(name="approve")(proposals.approve)
app.command(name="reject")(proposals.reject)
app.command(name="undo")(proposals.undo)
app.command(name="demo")(demo.demo)
app.add_typer(local.app, name="local", help="A small cluster on this machine.")


def main() -> None:
    """Run the command line; an error is one line on standard error and exit code 1."""
    try:
        app()
    except (ClientError, LocalClusterError) as error:
        print(f"moectl: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
