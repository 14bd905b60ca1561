"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Default: $KUBECONFIG, then ~/.kube/config.", show_default=False),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Default: that of the current context.", show_default=False),
]
