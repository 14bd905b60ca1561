"""`moectl proposals`, `approve`, `reject` and `undo`: what is proposed for the Experts, and people's decisions about it."""

from typing import Annotated, Any

import typer
from rich.console import Console

from moe_client import proposals as words
from moe_client.cli.options import Kubeconfig, Namespace
from moe_client.cluster import Cluster
from moe_client.errors import Conflict, Forbidden
from moe_client.tables import proposals_table
from moe_formats.resources.expert_proposal import ExpertProposal

Name = Annotated[str, typer.Argument(help="Name of the ExpertProposal; `moectl proposals` lists them.")]
Comment = Annotated[str, typer.Option("--comment", help="Why, for others to read.", show_default=False)]
Evidence = Annotated[
    str | None,
    typer.Option(
        "--evidence",
        help="Digest of the evidence that you have seen. If it is another one now, nothing is decided. "
        "Default: the one that this command shows.",
        show_default=False,
    ),
]


def proposals(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of an ExpertProposal, to see all of it. Default: a list.", show_default=False
        ),
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="List those of this pool only.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List those that are over, too.")] = False,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """List what is proposed for Experts and not over yet, or show one proposal: why, what it promises, how to decide."""
    cluster, console = Cluster(kubeconfig=kubeconfig, namespace=namespace), _console()
    if name is not None:
        _say(console, words.story(cluster.get(ExpertProposal, name)))
        return
    found = cluster.proposals(pool=pool)
    shown = [item for item in found if everything or item.status.phase not in words.OVER]
    if shown:
        Console().print(proposals_table(shown))
        return
    where = f"namespace {cluster.namespace}" + (f", pool {pool}" if pool else "")
    over = f" What is over ({len(found)}) is listed with --all." if found else ""
    _say(console, [f"Nothing is proposed in {where}.{over}"])


def approve(
    name: Name,
    comment: Comment = "",
    evidence: Evidence = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Approve a proposal: show what it rests on and promises, and record the decision with the digest of that evidence.

    It takes the verb approve on expertproposals. The same with kubectl, where the digest is in status.evidence.digest:

    kubectl patch eprop NAME --type=merge -p '{"spec":{"approval":{"decision":"Approved","evidence":"sha256:..."}}}'
    """
    _decide(Cluster(kubeconfig=kubeconfig, namespace=namespace), name, "Approved", comment, evidence)


def reject(
    name: Name,
    comment: Comment = "",
    evidence: Evidence = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Reject a proposal that has not started: it never does, and the same is not proposed again on the same evidence.

    It takes the verb approve on expertproposals. The same with kubectl, where the digest is in status.evidence.digest:

    kubectl patch eprop NAME --type=merge -p '{"spec":{"approval":{"decision":"Rejected","evidence":"sha256:..."}}}'
    """
    _decide(Cluster(kubeconfig=kubeconfig, namespace=namespace), name, "Rejected", comment, evidence)


def undo(name: Name, kubeconfig: Kubeconfig = None, namespace: Namespace = None) -> None:
    """Undo a proposal that has started: the revision that was current before becomes the current one again.

    It takes the verb approve on expertproposals. The same with kubectl:

    kubectl patch eprop NAME --type=merge -p '{"spec":{"undo":true}}'
    """
    cluster, console = Cluster(kubeconfig=kubeconfig, namespace=namespace), _console()
    proposal = cluster.get(ExpertProposal, name)
    if proposal.spec.undo:
        _say(console, [f"{name} is to be undone already. It is {words.state(proposal)}."])
        return
    words.check_started(proposal)
    _say(console, words.summary(proposal))
    _record(cluster, proposal, words.UNDO)
    _say(
        console,
        [f"{name} is to be undone. To see how far that is: moectl proposals {name} -n {cluster.namespace}"],
    )


def _decide(cluster: Cluster, name: str, wanted: words.Decision, comment: str, evidence: str | None) -> None:
    console, proposal = _console(), cluster.get(ExpertProposal, name)
    if already := words.already(proposal, wanted):
        _say(console, [already])
        return
    words.check_undecided(proposal, wanted, evidence)
    _say(console, words.summary(proposal))
    _record(cluster, proposal, words.decision(proposal, wanted, comment))
    then = {
        "Approved": "It starts as soon as its Expert is free and the pool's budget allows",
        "Rejected": "Nothing is done",
    }
    _say(console, [f"{wanted}. {then[wanted]}. To see it: moectl proposals {name} -n {cluster.namespace}"])


def _record(cluster: Cluster, proposal: ExpertProposal, change: dict[str, Any]) -> None:
    """Write a decision about exactly the proposal that was shown."""
    try:
        cluster.patch(proposal, change)
    except Conflict:
        name = proposal.metadata.name
        raise Conflict(
            f"{name} has changed while this command read it, so nothing was decided. Read it again: "
            f"moectl proposals {name} -n {cluster.namespace}"
        ) from None
    except Forbidden as error:
        raise Forbidden(
            f"{error}\n  to fix: ask for the verbs patch and approve on expertproposals.moe-operator.dev in namespace "
            f"{cluster.namespace}. Role admin has them, and so has the ClusterRole of the chart whose name ends in -approve"
        ) from None


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _say(console: Console, lines: Any) -> None:
    for line in lines:
        console.print(line, markup=False)
