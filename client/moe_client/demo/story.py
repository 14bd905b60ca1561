"""The demo's chapters, in order. Every number on the screen was measured in this run."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from moe_client import gateway
from moe_client.cluster import Cluster
from moe_client.demo.corpora import write_corpora, write_junk
from moe_client.demo.prompts import PROMPTS, Prompt
from moe_client.demo.screen import Screen
from moe_client.errors import ClientError
from moe_client.tables import bar, experts_table, matrix_table
from moe_client.why import why_expert
from moe_formats.job_report import Interval
from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_local.cluster import LocalCluster

POOL = "first-pool"
NAMESPACE = "default"
EXAMPLE = Path(__file__).parents[3] / "examples" / "01-first-pool"
#: The Expert that gets junk as new data once it serves.
VICTIM = "speeches"
#: Seconds after which the demo stops waiting and says where things stand.
PATIENCE = 1800.0
#: Seconds after which a stalled Expert counts as a failure.
SETTLING = 20.0

T = TypeVar("T")


class DemoError(ClientError):
    """The demo cannot continue; the message says where things stand."""


def tell(*, name: str, fresh: bool) -> int:
    """Run the whole demo on a small cluster of this name; return the exit code.

    The cluster keeps running, also after an error, so that it can be examined.
    """
    screen = Screen()
    local = LocalCluster(name=name)
    screen.heading("1. A real Kubernetes control plane on this machine")
    start_cluster(screen, local, fresh=fresh)
    cluster = Cluster(kubeconfig=local.kubeconfig, namespace=NAMESPACE)
    screen.heading("2. Four Experts from `kubectl apply`: data, training, evaluation, promotion, serving")
    apply_example(screen, local, cluster)
    watch_until_ready(screen, cluster)
    screen.heading("3. What was measured, on text that no Expert was trained on")
    show_scores(screen, cluster)
    screen.heading("4. A dozen prompts to the pool's gateway")
    route_prompts(screen, cluster)
    screen.heading(f"5. Junk as new data for {VICTIM}: the gate has to refuse it")
    feed_junk(screen, local, cluster)
    screen.heading("The cluster is still up. What to type next:")
    screen.say(*farewell(name))
    return 0


def start_cluster(screen: Screen, local: LocalCluster, *, fresh: bool) -> None:
    """Bring up the control plane, the node and the operator."""
    if fresh:
        local.down(delete=True)
    local.up(
        operator=True,
        on_step=lambda text, seconds: screen.say(
            Text.from_markup(f"  [green]✓[/green] {text} [dim]{seconds:.1f} s[/dim]")
        ),
    )


def apply_example(screen: Screen, local: LocalCluster, cluster: Cluster) -> None:
    """Fill the data store, then apply the example's manifests as a user would."""
    local.kubectl("apply", "-f", str(EXAMPLE / "00-corpora.yaml"), "-n", NAMESPACE)
    folder = claim_folder(cluster, "corpora")
    with screen.step("text from installed Python packages into the data store `corpora`"):
        corpora = write_corpora(folder)
        write_junk(folder)
    for corpus in corpora:
        screen.say(f"    {corpus.domain:<12} {corpus.documents:>5} documents  {corpus.bytes / 1e6:5.2f} MB")
    screen.command("kubectl apply -f examples/01-first-pool/")
    for line in local.kubectl("apply", "-n", NAMESPACE, "-f", str(EXAMPLE)).stdout.splitlines():
        screen.say(f"    {line}")


def claim_folder(cluster: Cluster, claim: str) -> Path:
    """Return the folder behind a claim of the small cluster; waits until the claim is bound."""

    def bound() -> Path | None:
        path = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/{claim}"
        volume = cluster.call("GET", path)["spec"].get("volumeName")
        if not volume:
            return None
        source = cluster.call("GET", f"/api/v1/persistentvolumes/{volume}")["spec"]
        return Path(source["local" if "local" in source else "hostPath"]["path"])

    return _wait_for(bound, f"claim {claim} to be bound", seconds=30)


def watch_until_ready(screen: Screen, cluster: Cluster) -> None:
    """Show the table until every Expert is Ready; raises DemoError if one stays stalled or it takes too long."""
    started = time.monotonic()

    def draw() -> tuple[Table, bool]:
        experts = cluster.all(Expert)
        waited = time.monotonic() - started
        for expert in experts:
            # At first an Expert may be stalled for a moment, if it was applied before its base.
            if (_is(expert, ConditionType.STALLED) and waited > SETTLING) or waited > PATIENCE:
                story = why_expert(expert, cluster.revisions(expert.metadata.name))
                raise DemoError("\n".join(["the demo cannot continue.", *story]))
        return experts_table(experts, width=screen.console.width), all(
            _is(item, ConditionType.READY) for item in experts
        )

    screen.follow(draw)


def show_scores(screen: Screen, cluster: Cluster) -> None:
    """Print the matrix, gains, specialization scores and targets."""
    experts = cluster.all(Expert)
    revisions = {item.metadata.name: item for item in cluster.all(ExpertRevision)}
    promoted = {item.metadata.name: revisions[item.status.current_revision or ""] for item in experts}
    screen.say(matrix_table(promoted), "")
    screen.say(scores_table(experts))


def scores_table(experts: Sequence[Expert]) -> Table:
    """Return gain, specialization score and targets of each Expert, with 95 % intervals."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("EXPERT", "GAIN OVER BASE", "SPECIALIZATION SCORE", "FORGETTING (BITS)", "TARGETS"):
        table.add_column(column, no_wrap=True)
    for expert in experts:
        scores = expert.status.scores
        if scores is None:
            continue
        table.add_row(
            expert.metadata.name,
            _interval(scores.gain),
            _interval(scores.specialization_score),
            _interval(scores.forgetting),
            f"{expert.status.targets} met" if expert.status.targets else "-",
        )
    return table


def route_prompts(screen: Screen, cluster: Cluster) -> None:
    """Send the prompts, and say where each went and whether that is right."""
    strategy = _wait_for(
        lambda: _strategy_in_force(cluster), "the gateway to report its routing policy", seconds=120
    )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("PROMPT", "EXPERT", "CONFIDENCE", ""):
        table.add_column(column, no_wrap=True)
    right = 0
    for prompt in PROMPTS:
        answer = gateway.route(cluster, POOL, prompt.text)
        right += answer.expert == prompt.domain
        table.add_row(*_routed(prompt, answer))
    screen.say(table, f"  {right} of {len(PROMPTS)} right, by strategy {strategy}")
    first = PROMPTS[0]
    screen.say(
        f"  The pool's completion of {first.text!r}:", f"    {gateway.complete(cluster, POOL, first.text)!r}"
    )


def feed_junk(screen: Screen, local: LocalCluster, cluster: Cluster) -> None:
    """Give a serving Expert junk as data, wait for the verdict, and show clause, numbers and interval."""
    before = cluster.get(Expert, VICTIM).status.current_revision
    patch = '{"spec":{"data":{"sources":[{"store":"corpora","path":"junk/*.txt"}]}}}'
    screen.command(f"kubectl patch expert {VICTIM} --type=merge -p '{patch}'")
    local.kubectl("patch", "expert", VICTIM, "-n", NAMESPACE, "--type=merge", "-p", patch)
    deadline = time.monotonic() + PATIENCE

    def draw() -> tuple[Table, bool]:
        if time.monotonic() > deadline:
            raise DemoError(
                "no verdict on the junk after half an hour: see `moectl why expert/" + VICTIM + "`"
            )
        expert = cluster.get(Expert, VICTIM)
        return experts_table([expert], width=screen.console.width), _junk_verdict(cluster, before) is not None

    screen.follow(draw)
    revision = _junk_verdict(cluster, before)
    assert revision is not None and revision.status.verdict is not None
    verdict = revision.status.verdict
    screen.say(
        f"  {revision.metadata.name}: {verdict.outcome} by clause {verdict.clause}", f"  {verdict.message}"
    )
    serving = cluster.get(Expert, VICTIM).status.serving
    screen.say(f"  {VICTIM} goes on serving {serving.revision if serving else 'nothing'}.")
    if verdict.outcome != "Refused":
        raise DemoError(f"junk was {verdict.outcome.lower()}: this must not happen, please report it")


def farewell(name: str) -> list[str]:
    """Return what to type next."""
    return [
        f'  eval "$(moectl local env --name {name})"       # kubectl and helm of this cluster',
        "  kubectl get experts                       # add -w to watch; kubectl explain expert.spec has every field",
        f"  moectl why expert/{VICTIM}                  # explains in words why it is where it is",
        f"  moectl route {POOL} 'def main():'      # says which Expert takes a prompt",
        f"  make down                                 # stops it; moectl local down --name {name} --delete removes its data",
        "  (moectl is in .venv/bin)",
    ]


def _junk_verdict(cluster: Cluster, before: str | None) -> ExpertRevision | None:
    newest = cluster.revisions(VICTIM)[-1]
    return newest if newest.metadata.name != before and newest.status.verdict else None


def _strategy_in_force(cluster: Cluster) -> str | None:
    """Return the pool's strategy once a gateway reports the newest policy; Distilled first needs its table."""
    pool = cluster.get(ExpertPool, POOL)
    routing = pool.status.routing
    settled = routing.strategy == pool.spec.routing.strategy and routing.reported_by > 0
    return routing.strategy if settled else None


def _routed(prompt: Prompt, answer: gateway.Route) -> tuple[Text | str, ...]:
    mark = (
        Text("right", style="green")
        if answer.expert == prompt.domain
        else Text(f"wrong: {prompt.domain}", style="red")
    )
    sure = f"{bar(answer.confidence, 10)} {answer.confidence:.2f}" if answer.confidence is not None else "-"
    return Text(" ".join(prompt.text.split())[:48]), answer.expert, sure, mark


def _interval(value: Interval | None) -> str:
    return f"{value.value:.3f} [{value.lower:.3f}, {value.upper:.3f}]" if value else "-"


def _is(expert: Expert, type_: ConditionType) -> bool:
    found = find_condition(expert.status.conditions, type_)
    current = found is not None and found.observed_generation >= expert.metadata.generation
    return current and found is not None and found.status == "True"


def _wait_for(look: Callable[[], T | None], what: str, *, seconds: float) -> T:
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise DemoError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)
    return found
