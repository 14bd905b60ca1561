"""`moectl local`: a small cluster on this machine."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from moe_local.cluster import LocalCluster
    from moe_local.status import ClusterStatus, PartStatus

# moe_local is imported where it is used: a plain client may not have its packages.

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="Name of the cluster; several can run side by side.")]


class Output(StrEnum):
    """How a status is printed."""

    TABLE = "table"
    JSON = "json"


@app.command()
def up(
    name: Name = "moe",
    operator: Annotated[bool, typer.Option(help="Install the chart and wait for the operator.")] = True,
    values: Annotated[
        list[Path] | None,
        typer.Option(
            "--values",
            "-f",
            help="File with more values for the chart; can be repeated. Default: the files of the last start.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            help="IMAGE=FOLDER: use a folder with a bin/ in place of an image; can be repeated. "
            "Default: those of the last start."
        ),
    ] = None,
) -> None:
    """Start the cluster, or the parts of it that do not run, and wait until it is ready."""
    with _errors_told():
        cluster = _cluster(name)
        _warn_of_missing(cluster)
        images = dict(_image(option) for option in image) if image else None
        console = Console(highlight=False)
        with _interruptible_once(console) as check, console.status("starting") as spinner:

            def on_step(step: str, seconds: float) -> None:
                check()
                _tell_step(console, step, seconds)

            cluster.up(
                operator=operator,
                values=values or None,
                images=images,
                on_step=on_step,
                progress=spinner.update if console.is_terminal else console.print,
            )
        console.print(f'To use it: eval "$(moectl local env --name {name})"')


@app.command()
def down(
    name: Name = "moe",
    delete: Annotated[bool, typer.Option("--delete", help="Remove its data, too.")] = False,
) -> None:
    """Stop the cluster and every pod on it. Its data is kept, unless --delete is given."""
    with _errors_told():
        console = Console(highlight=False)
        with console.status("stopping"):
            _cluster(name).down(
                delete=delete, on_step=lambda step, seconds: _tell_step(console, step, seconds)
            )


@app.command()
def status(
    name: Name = "moe",
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print it.")] = Output.TABLE,
) -> None:
    """Show every part of the cluster; the exit code is 0 only if all is well."""
    with _errors_told():
        found = _cluster(name).status()
    if output is Output.JSON:
        print(json.dumps(_as_json(name, found), indent=2))
    else:
        _print_status(name, found)
    raise typer.Exit(0 if found.well else 1)


@app.command()
def env(name: Name = "moe") -> None:
    """Print the variables with which a shell uses this cluster: eval "$(moectl local env)"."""
    with _errors_told():
        cluster = _cluster(name)
        if not cluster.kubeconfig.exists():
            sys.exit(f"moectl: there is no cluster {name!r}\n  to fix: moectl local up --name {name}")
        for variable, value in cluster.variables().items():
            print(f"export {variable}={shlex.quote(value)}")
        print(f'export PATH={shlex.quote(str(cluster.folder.programs))}:"$PATH"')


def _cluster(name: str) -> LocalCluster:
    from moe_local.cluster import LocalCluster

    return LocalCluster(name)


@contextmanager
def _errors_told() -> Iterator[None]:
    """Print an error of the cluster in words and exit with code 1."""
    try:
        from moe_local.errors import LocalClusterError
    except ImportError as error:
        sys.exit(f"moectl: {error}\n  to fix: pip install 'moe-operator[local]'")
    try:
        yield
    except LocalClusterError as error:
        sys.exit(f"moectl: {error}")
    except OSError as error:  # no space, no permission, no file
        sys.exit(
            f"moectl: {error}\n  to fix: make sure that this user can write there and that the disk is not full"
        )


@contextmanager
def _interruptible_once(console: Console) -> Iterator[Callable[[], None]]:
    """Let SIGTERM end `up` as Ctrl-C does; further signals do not interrupt stopping what was started.

    Yields a function that raises the interrupt again. It has to be called between steps: an exception that a signal
    raises while an object is being destroyed is printed by Python and otherwise lost.
    """
    asked = False

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    def interrupt(*_: object) -> None:
        nonlocal asked
        asked = True
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        console.print("interrupted: stopping what was started")
        raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield check
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _warn_of_missing(cluster: LocalCluster) -> None:
    from moe_local.preflight import judge, measure

    if cluster.part_pids():
        return
    for finding in judge(measure(cluster.folder.path, must_build=False, isolation=True)):
        if not finding.fatal:
            print(f"warning: {finding.message}\n  {finding.fix}", file=sys.stderr)


def _image(option: str) -> tuple[str, Path]:
    name, _, folder = option.partition("=")
    if not (Path(folder) / "bin").is_dir():
        sys.exit(
            f"moectl: --image {option}: give IMAGE=FOLDER, where FOLDER has a bin/ with the image's commands"
        )
    return name, Path(folder)


def _tell_step(console: Console, step: str, seconds: float) -> None:
    console.print(Text.assemble(("✓ ", "green"), step, (f"  {seconds:.1f} s", "dim")))


def _print_status(name: str, status: ClusterStatus) -> None:
    console = Console(highlight=False)
    if not status.parts:
        console.print(f"Cluster {name} has never been started. To start it: moectl local up --name {name}")
        return
    table = Table("PART", "PID", "MEMORY", "UP", "STATE", box=None, pad_edge=False, header_style="")
    for part in status.parts:
        table.add_row(part.name, *_row(part))
    console.print(table)
    operator = {True: "ready", False: "not ready", None: "not installed"}[status.operator_ready]
    console.print(f"\nnode: {'ready' if status.node_ready else 'not ready'}, operator: {operator}")
    for sentence in status.not_isolated:
        console.print(f"not isolated: {sentence}")
    if not status.well:
        console.print(f"To repair it: moectl local up --name {name}")


def _row(part: PartStatus) -> tuple[str, str, str, Text]:
    if part.process is None:
        return "-", "-", "-", Text("stopped", "red")
    seconds = int((datetime.now(UTC) - part.process.started).total_seconds())
    age = (
        f"{seconds // 3600}h{seconds // 60 % 60:02}m"
        if seconds >= 3600
        else f"{seconds // 60}m{seconds % 60:02}s"
    )
    state = Text("healthy", "green") if part.healthy else Text("unhealthy", "red")
    return str(part.process.pid), f"{part.process.rss_bytes / 2**20:.0f} MiB", age, state


def _as_json(name: str, status: ClusterStatus) -> dict[str, object]:
    return {
        "name": name,
        "well": status.well,
        "nodeReady": status.node_ready,
        "operatorReady": status.operator_ready,
        "notIsolated": list(status.not_isolated),
        "parts": [
            {
                "name": part.name,
                "healthy": part.healthy,
                "pid": part.process.pid if part.process else None,
                "rssBytes": part.process.rss_bytes if part.process else None,
                "startedAt": part.process.started.isoformat(timespec="seconds") if part.process else None,
            }
            for part in status.parts
        ],
    }
