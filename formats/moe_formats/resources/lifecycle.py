"""`spec.lifecycle` and `status.lifecycle` of a pool: what the operator may do by itself, and what it did and held back."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from moe_formats.format import Format
from moe_formats.names import ObjectName


class Act(StrEnum):
    """Something that the operator proposes to do with an Expert."""

    REFRESH = "Refresh"
    RESPECIALIZE = "Respecialize"
    REBASE = "Rebase"
    ROLL_BACK = "RollBack"


#: Whether an act is not proposed, proposed for a person to approve, or approved by the policy.
Mode = Literal["Off", "Propose", "Auto"]

_MODES = "`Off`: it is only counted. `Propose`: a person has to approve it. `Auto`: it is approved as soon as it is proposed."


class ModeOfActs(Format):
    """Modes of single acts. An act that is absent has the default mode."""

    refresh: Mode | None = Field(
        default=None,
        description="Training on new data that a refresh has read. `Auto`: training starts at once and no proposal is made, "
        "since spec.data.refresh of the Expert asks for it. `Propose`: it waits for a person. `Off`: new data is read and not "
        "trained on. Default: Auto, whatever the default of the other acts is.",
    )
    respecialize: Mode | None = Field(
        default=None,
        description="Training again, from the current revision, an Expert that its own new text shows to have drifted. "
        + _MODES
        + " Default: spec.lifecycle.default.",
    )
    roll_back: Mode | None = Field(
        default=None,
        description="Going back to the revision before, if requests fail, or answers begin, clearly worse than before a "
        "promotion. " + _MODES + " Default: spec.lifecycle.default.",
    )


class ChangeBudget(Format):
    """How many changes of weights proposals may start within 24 hours. Those of people's own specs are not counted."""

    per_expert: int = Field(
        default=1,
        ge=0,
        le=100,
        description="Largest number of proposals of one Expert that may start within 24 hours. With 0, none starts.",
    )
    per_pool: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="Largest number of proposals of the whole pool that may start within 24 hours. With 0, none starts.",
    )


class Lifecycle(Format):
    """What the operator may do by itself with the Experts of the pool. docs/lifecycle.md explains each act."""

    default: Mode = Field(
        default="Propose",
        description="Mode of every act that overrides does not name. "
        + _MODES
        + " Following a newer revision of the base is governed by spec.base.follow of each Expert instead.",
    )
    overrides: ModeOfActs = Field(
        default_factory=ModeOfActs, description="Modes of single acts. Default: the default mode for all."
    )
    budget: ChangeBudget = Field(
        default_factory=ChangeBudget,
        description="How many changes of weights proposals may start within 24 hours. Default: the default of every field.",
    )

    def mode(self, act: Act) -> Mode:
        """Return the mode that the spec gives an act. A rebase has that of each Expert's base instead."""
        if act is Act.REFRESH:
            return self.overrides.refresh or "Auto"
        own = self.overrides.respecialize if act is Act.RESPECIALIZE else self.overrides.roll_back
        return own or self.default


class ActStatus(Format):
    """One act in a pool: whether it may happen by itself, and what came of its proposals."""

    act: Act = Field(description="The act that this is about.")
    mode: Mode = Field(
        description="Mode that the spec gives it. For `Rebase`, the highest that spec.base.follow of an Expert asks for."
    )
    effective: Mode = Field(
        description="Mode that counts. It is `Propose` instead of `Auto` once two proposals missed the effect that they "
        "promised, until the mode in the spec is changed."
    )
    since: str = Field(
        max_length=40,
        description="When the mode in the spec was last seen to change: RFC 3339 in UTC. Earlier misses do not count.",
    )
    open: int = Field(
        default=0, description="Number of proposals that wait for a decision or for their start."
    )
    running: int = Field(default=0, description="Number of proposals that are being carried out.")
    held_back: list[ObjectName] = Field(
        default_factory=list,
        max_length=8,
        description="Names of proposals that would be open now if the mode were not `Off`.",
    )
    held_back_total: int = Field(
        default=0, description="Number of proposals that were not made because the mode was `Off`."
    )
    missed: list[ObjectName] = Field(
        default_factory=list,
        max_length=8,
        description="Names of proposals, since the mode was last changed, whose effect was not what they promised.",
    )


class LifecycleStatus(Format):
    """What the operator proposed for the Experts of the pool, and how much it may still start."""

    acts: list[ActStatus] = Field(
        default_factory=list,
        max_length=16,
        description="Every act that was ever proposed or held back in the pool.",
    )
    started: int = Field(default=0, description="Number of proposals that started within the last 24 hours.")
    waiting_for_room: int = Field(
        default=0,
        description="Number of proposals that would be made if fewer than 8 were open.",
    )
