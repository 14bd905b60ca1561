"""ExpertProposal: something that should be done with an Expert, why, and what it promises. People or a policy approve it."""

from math import expm1
from typing import Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Digest, Format
from moe_formats.job_report import Interval
from moe_formats.names import Name, ObjectName
from moe_formats.resources.base import CustomResource, ShortText, cel
from moe_formats.resources.conditions import ObjectStatus
from moe_formats.resources.lifecycle import Act


class Approval(Format):
    """A person's decision about a proposal."""

    decision: Literal["Approved", "Rejected"] = Field(
        description="`Approved`: it starts as soon as the pool's budget allows. `Rejected`: it never starts. Both need the "
        "permission `approve` on ExpertProposals if the chart's admission policy is installed."
    )
    evidence: Digest = Field(
        description="The digest in status.evidence that the decision rests on. An approval that quotes another digest does "
        "nothing: what the proposal rests on has changed since."
    )
    comment: str = Field(default="", max_length=1024, description="Why, for others to read. Default: empty.")


#: What of a proposal can never change: everything but the approval and the undoing.
_FIXED = (
    "self.pool == oldSelf.pool && self.expert == oldSelf.expert && self.act == oldSelf.act"
    " && has(self.revision) == has(oldSelf.revision)"
    " && (!has(self.revision) || self.revision == oldSelf.revision)"
    " && has(self.expires) == has(oldSelf.expires) && (!has(self.expires) || self.expires == oldSelf.expires)"
    " && self.comment == oldSelf.comment"
)


class ExpertProposalSpec(Format):
    """What should be done, and what people decided about it."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                _FIXED,
                "only approval and undo of an ExpertProposal can be changed: create another proposal instead",
            ),
            ("!oldSelf.undo || self.undo", "undo cannot be taken back: create another proposal instead"),
            (
                "has(self.revision) == (self.act == 'RollBack')",
                "revision belongs to act RollBack: name the revision to go back to, or remove the field",
            ),
        )
    )

    pool: Name = Field(description="Name of the pool that the Expert belongs to. Immutable.")
    expert: Name = Field(description="Name of the Expert that something should be done with. Immutable.")
    act: Act = Field(
        description="What should be done. `Refresh`: train the current revision on the newest snapshot. `Respecialize`: the "
        "same because the Expert has drifted, with text from its first snapshot mixed in so that it is not forgotten. "
        "`Rebase`: train again from the current revision of the base. `RollBack`: make an earlier revision the current one. "
        "Immutable."
    )
    revision: ObjectName | None = Field(
        default=None,
        description="Promoted revision of the Expert to go back to, for act RollBack. Immutable. Default: none.",
    )
    expires: str | None = Field(
        default=None,
        max_length=40,
        json_schema_extra={"format": "date-time"},
        description="When the proposal expires if it has not started by then: RFC 3339, for example `2026-01-31T12:00:00Z`. "
        "Immutable. Default: 7 days after it was created.",
    )
    comment: str = Field(
        default="",
        max_length=1024,
        description="Why somebody proposes it, for others to read. Immutable. Default: empty.",
    )
    approval: Approval | None = Field(
        default=None, description="What a person decided. Default: nothing was decided yet."
    )
    undo: bool = Field(
        default=False,
        description="Set it to `true` to undo what was done: the revision that was current before becomes the current one "
        "again. It cannot be taken back.",
    )


class ProposalEvidence(Format):
    """What a proposal rests on. Only the operator writes it."""

    digest: Digest = Field(
        description="Digest of the revisions, windows and data that the proposal rests on. An approval quotes it."
    )
    summary: str = Field(max_length=2048, description="Why it should be done, in words, with the numbers.")
    expert_uid: str = Field(
        alias="expertUID",
        max_length=64,
        description="UID of the Expert: an Expert made again under the same name is never meant.",
    )
    current: ObjectName = Field(description="Revision that was current when it was proposed.")
    promoted: str = Field(
        default="",
        max_length=40,
        description="When the current revision was promoted: RFC 3339 in UTC. Empty if it was not recorded.",
    )
    parent: ObjectName = Field(
        description="Revision that training starts from, or that becomes the current one."
    )
    snapshot: Digest | None = Field(
        default=None, description="Snapshot that would be trained on. Absent if nothing is trained."
    )
    windows: list[Digest] = Field(
        default_factory=list,
        max_length=8,
        description="Holdouts that were measured on. Default: none.",
    )
    time: str = Field(max_length=40, description="When the evidence was recorded: RFC 3339 in UTC.")


class Effect(Format):
    """A quantity that an act changes, as promised or as measured afterwards."""

    quantity: str = Field(max_length=128, description="What is measured, with its unit.")
    scale: Literal["Share", "Logarithm"] = Field(
        default="Share",
        description="What the numbers of the interval are: a difference of shares (`Share`), or the logarithm of a ratio "
        "(`Logarithm`).",
    )
    interval: Interval = Field(description="The change. Negative is better.")

    @property
    def percent(self) -> tuple[float, float, float]:
        """The change with both ends of its interval, in per cent: of a share in points, of a ratio relative to before."""
        ends = self.interval.value, self.interval.lower, self.interval.upper
        value, lower, upper = (
            100 * (expm1(number) if self.scale == "Logarithm" else number) for number in ends
        )
        return value, lower, upper


class ExpertProposalStatus(ObjectStatus):
    """What became of a proposal."""

    phase: str = Field(
        default="",
        max_length=40,
        description="`Open` (waits for a decision), `Approved` (waits for its start), `Running`, `Done`, `Missed` (done or "
        "refused by the gate without the promised effect), `Rejected`, `Expired`, `Superseded` (what it rests on no longer "
        "holds), `Void` (it cannot be done), `Undoing`, `Undone`, or `Error` if the operator failed to process it.",
    )
    evidence: ProposalEvidence | None = Field(
        default=None, description="What the proposal rests on. Absent while it could not be found out."
    )
    expected: Effect | None = Field(
        default=None, description="The effect that it promises. Absent with a reason in `absent`."
    )
    measured: Effect | None = Field(
        default=None,
        description="The same quantity, measured after it was done. Absent before, or with a reason in `absent`.",
    )
    effect: str = Field(
        default="",
        max_length=64,
        description="Text of the EFFECT column: the effect that is expected, or the measured one once there is one.",
    )
    absent: dict[str, ShortText] = Field(
        default_factory=dict,
        max_length=4,
        description="`expected` or `measured` if it is not known, with the reason.",
    )
    approved_by: Literal["", "Policy", "Person"] = Field(
        default="",
        description="Who approved it: the pool's policy (`Auto`) or a person. Empty before.",
    )
    revision: ObjectName | None = Field(
        default=None,
        description="Revision that was made for it, or that became the current one. Absent before there is one.",
    )
    expires: str = Field(
        default="",
        max_length=40,
        description="When it expires if it has not started by then: RFC 3339 in UTC.",
    )
    started: str | None = Field(
        default=None, max_length=40, description="When it started: RFC 3339 in UTC. Absent before."
    )
    finished: str | None = Field(
        default=None,
        max_length=40,
        description="When it was done, or given up: RFC 3339 in UTC. Absent before.",
    )
    patch: str = Field(
        default="",
        max_length=4096,
        description="What to commit to say the same in Git, as YAML. Empty while there is no evidence.",
    )


#: Phases in which nothing happens any more by itself.
FINISHED = frozenset({"Done", "Missed", "Rejected", "Expired", "Void", "Undone"})


class ExpertProposal(CustomResource):
    """Something that should be done with an Expert: the act, its evidence, the effect it promises, and the approval."""

    spec: ExpertProposalSpec
    status: ExpertProposalStatus = Field(default_factory=ExpertProposalStatus)
