"""The kinds of the API group: their names, the columns that `kubectl get` shows, and how they scale."""

from dataclasses import dataclass

from moe_formats.resources.base import CustomResource
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`. A wide column is shown only with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """The fields that `kubectl scale` and autoscalers read and write, as JSON paths."""

    spec_replicas: str
    status_replicas: str = ".status.replicas"
    selector: str = ".status.selector"


@dataclass(frozen=True, slots=True)
class Kind:
    """One custom resource: its model, its names and what `kubectl` does with it."""

    model: type[CustomResource]
    plural: str
    short: str
    columns: tuple[Column, ...]
    #: Fields by which `kubectl get --field-selector` can select, as JSON paths.
    selectable: tuple[str, ...] = ()
    scale: Scale | None = None
    #: Whether names are limited to 40 characters, because names of children are derived from them.
    short_name_rule: bool = True

    @property
    def name(self) -> str:
        """Return the kind as a manifest spells it, for example `ExpertPool`."""
        return self.model.__name__

    @property
    def singular(self) -> str:
        """Return the name for one object, for example `expertpool`."""
        return self.name.lower()


def _of_condition(type_: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_READY = Column("Ready", _of_condition("Ready", "status"))
_MESSAGE = Column("Message", _of_condition("Ready", "message"), wide=True)
_AGE = Column("Age", ".metadata.creationTimestamp", type="date")

EXPERT = Kind(
    model=Expert,
    plural="experts",
    short="exp",
    columns=(
        Column("Domain", ".spec.domain"),
        Column("Pool", ".spec.pool"),
        Column("Phase", ".status.phase"),
        _READY,
        Column("Progress", ".status.training.summary"),
        Column("ETA", ".status.training.eta"),
        Column("Score", ".status.score"),
        Column("Targets", ".status.targets"),
        Column("Reason", ".status.reason"),
        Column("Base", ".spec.base['expert','preset','path']", wide=True),
        Column("Revision", ".status.serving.target", wide=True),
        Column("Replicas", ".status.serving.readyReplicas", type="integer", wide=True),
        Column("Requests", ".status.analysis.requests", type="integer", wide=True),
        Column("Utilization", ".status.analysis.utilization", type="number", wide=True),
        Column("Trend", ".status.analysis.trend", wide=True),
        Column("Drifted", _of_condition("Drifted", "status"), wide=True),
        Column("Proposal", ".status.proposal", wide=True),
        _MESSAGE,
        _AGE,
    ),
    selectable=(".spec.pool", ".spec.domain"),
    scale=Scale(".spec.serving.replicas"),
)

EXPERT_POOL = Kind(
    model=ExpertPool,
    plural="expertpools",
    short="epool",
    columns=(
        Column("Strategy", ".status.routing.strategy"),
        Column("Experts", ".status.experts"),
        _READY,
        Column("Reason", ".status.reason"),
        Column("Gateways", ".status.replicas", type="integer", wide=True),
        Column("Requests", ".status.analysis.requests", type="integer", wide=True),
        Column("Balance", ".status.analysis.balance", type="number", wide=True),
        Column("URL", ".status.routing.url", wide=True),
        _MESSAGE,
        _AGE,
    ),
    scale=Scale(".spec.gateway.replicas"),
)

EXPERT_REVISION = Kind(
    model=ExpertRevision,
    plural="expertrevisions",
    short="exprev",
    columns=(
        Column("Expert", ".spec.expert"),
        Column("Cause", ".spec.cause"),
        Column("Phase", ".status.phase"),
        Column("Verdict", ".status.verdict.outcome"),
        Column("Clause", ".status.verdict.clause"),
        Column("Attempts", ".status.attempts", type="integer"),
        Column("Pool", ".spec.pool", wide=True),
        Column("Artefact", ".status.artefact.digest", wide=True),
        Column("Message", ".status.verdict.message", wide=True),
        _AGE,
    ),
    selectable=(".spec.expert", ".spec.pool", ".spec.cause"),
    short_name_rule=False,
)

EXPERT_PROPOSAL = Kind(
    model=ExpertProposal,
    plural="expertproposals",
    short="eprop",
    columns=(
        Column("Act", ".spec.act"),
        Column("Expert", ".spec.expert"),
        Column("Effect", ".status.effect"),
        Column("State", ".status.phase"),
        Column("Reason", ".status.reason"),
        Column("Pool", ".spec.pool", wide=True),
        Column("Revision", ".status.revision", wide=True),
        Column("Expires", ".status.expires", wide=True),
        Column("Evidence", ".status.evidence.digest", wide=True),
        Column("Message", _of_condition("Ready", "message"), wide=True),
        _AGE,
    ),
    selectable=(".spec.expert", ".spec.pool", ".spec.act"),
    short_name_rule=False,
)

#: Every kind, in the order in which documentation lists them.
KINDS: tuple[Kind, ...] = (EXPERT_POOL, EXPERT, EXPERT_REVISION, EXPERT_PROPOSAL)
