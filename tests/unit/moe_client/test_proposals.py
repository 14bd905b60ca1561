"""What is said of a proposal, and what may be decided about it in each of its phases."""

import json
import shlex

import pytest

from moe_client.errors import Undecidable
from moe_client.proposals import UNDECIDED, already, check_started, check_undecided, decision, story
from moe_formats.resources.expert_proposal import FINISHED, ExpertProposal

OTHER = "sha256:" + "b" * 64
#: Every phase that the description of the field names.
PHASES = (
    "Open", "Approved", "Running", "Done", "Missed", "Rejected", "Expired", "Superseded", "Void", "Undoing", "Undone", "Error",
)  # fmt: skip


def in_phase(manifest, phase, **spec) -> ExpertProposal:
    """The proposal in a phase."""
    manifest["spec"].update(spec)
    manifest["status"].update(phase=phase, reason="Progressing")
    return ExpertProposal.model_validate(manifest)


def told(proposal: ExpertProposal) -> str:
    return "\n".join(story(proposal))


def test_an_open_proposal_says_why_what_it_promises_and_how_to_decide(proposal_manifest):
    text = told(ExpertProposal.model_validate(proposal_manifest))
    assert "Rebase of Expert mathematics in pool first-pool" in text
    assert "It is Open (AwaitingApproval): it waits for a person." in text
    assert "Why: mathematics-1 starts from general-1, and general-2 was promoted since.\n" in text
    assert "mathematics-1 was the current revision, and general-2 is what training starts from." in text
    assert (
        "Promised: -4.0 % [-8.0, -0.5], mean ln(bits per byte after / before) on the newest holdout. Below 0 is better."
        in text
    )
    assert "It expires at 2026-01-08T00:00:00+00:00 if it has not started by then." in text
    assert "  spec:\n    act: Rebase" in text
    assert "moectl approve mathematics-rebase-1a2b3c4d -n default" in text


def test_the_command_of_kubectl_says_what_moectl_would_write(proposal_manifest):
    proposal = ExpertProposal.model_validate(proposal_manifest)
    (line,) = (line for line in story(proposal) if "kubectl patch" in line)
    words = shlex.split(line.partition("or: ")[2])
    assert words[:6] == ["kubectl", "patch", "eprop", proposal.metadata.name, "-n", "default"]
    assert json.loads(words[-1]) == decision(proposal, "Approved")


def test_what_was_measured_and_what_is_not_known_is_said(proposal_manifest):
    proposal_manifest["status"].update(
        revision="mathematics-2",
        measured={
            "quantity": "share of requests that fail",
            "interval": {"value": 0.1, "lower": 0.05, "upper": 0.15},
        },
        absent={"expected": "no share got worse"},
        started="2026-01-02T00:00:00+00:00",
        finished="2026-01-03T00:00:00+00:00",
        approvedBy="Policy",
        expected=None,
    )
    text = told(in_phase(proposal_manifest, "Missed"))
    assert "Measured: +10.0 % [+5.0, +15.0], share of requests that fail." in text
    assert "Nothing is promised: no share got worse." in text
    assert "The pool's policy approved it." in text
    assert "It started at 2026-01-02T00:00:00+00:00 and ended at 2026-01-03T00:00:00+00:00." in text
    assert "Revision: mathematics-2." in text
    assert "To undo it: moectl undo" in text and "It expires" not in text


def test_a_decision_is_told_with_its_comment(proposal_manifest):
    approval = {"decision": "Rejected", "evidence": OTHER, "comment": "not before Monday"}
    text = told(in_phase(proposal_manifest, "Rejected", approval=approval))
    assert f"A person decided: Rejected, on evidence {OTHER}, with the comment: not before Monday" in text
    assert "\nTo " not in text and "In Git" not in text, "nothing can be decided any more"


def test_a_proposal_that_nobody_has_looked_at_can_be_told(proposal_manifest):
    proposal_manifest.pop("status")
    assert "It is not looked at by the operator yet." in told(
        ExpertProposal.model_validate(proposal_manifest)
    )


@pytest.mark.parametrize("phase", PHASES)
def test_only_what_is_open_can_be_approved_and_only_what_has_not_started_rejected(proposal_manifest, phase):
    proposal = in_phase(proposal_manifest, phase)
    if phase == "Open":
        check_undecided(proposal, "Approved")
    else:
        with pytest.raises(Undecidable, match=phase):
            check_undecided(proposal, "Approved")
    if phase in UNDECIDED:
        check_undecided(proposal, "Rejected")
    else:
        with pytest.raises(Undecidable, match=phase):
            check_undecided(proposal, "Rejected")
    assert not (UNDECIDED & FINISHED)


@pytest.mark.parametrize("phase", PHASES)
def test_only_what_was_started_can_be_undone(proposal_manifest, phase):
    proposal = in_phase(proposal_manifest, phase)
    if phase in ("Running", "Done", "Missed"):
        check_started(proposal)
        return
    with pytest.raises(Undecidable, match="nothing to undo") as raised:
        check_started(proposal)
    assert ("moectl reject" in str(raised.value)) is (phase in UNDECIDED)


def test_evidence_that_changed_since_it_was_seen_is_not_approved(proposal_manifest):
    proposal = ExpertProposal.model_validate(proposal_manifest)
    check_undecided(proposal, "Approved", proposal.status.evidence.digest)
    with pytest.raises(Undecidable, match=f"--evidence {OTHER}, and it is sha256:aaa"):
        check_undecided(proposal, "Approved", OTHER)


def test_without_evidence_nothing_can_be_decided(proposal_manifest):
    del proposal_manifest["status"]["evidence"]
    proposal_manifest["status"]["conditions"][0]["message"] = "mathematics-9 is no promoted revision"
    proposal = in_phase(proposal_manifest, "Open")
    with pytest.raises(Undecidable, match=r"as things are now.*mathematics-9 is no promoted revision"):
        check_undecided(proposal, "Approved")
    with pytest.raises(Undecidable, match="kubectl delete eprop"):
        check_undecided(proposal, "Rejected")
    assert "moectl approve" not in told(proposal)


def test_a_proposal_that_the_operator_has_not_looked_at_cannot_be_decided_yet(proposal_manifest):
    proposal_manifest.pop("status")
    proposal = ExpertProposal.model_validate(proposal_manifest)
    for wanted in ("Approved", "Rejected"):
        with pytest.raises(Undecidable, match="has not looked at it"):
            check_undecided(proposal, wanted)


def test_a_decision_is_not_asked_for_twice(proposal_manifest):
    digest = proposal_manifest["status"]["evidence"]["digest"]
    approved, void = ({"decision": "Approved", "evidence": item} for item in (digest, OTHER))
    assert "has yet to look" in already(in_phase(proposal_manifest, "Open", approval=approved), "Approved")
    assert already(in_phase(proposal_manifest, "Open", approval=void), "Approved") == "", (
        "it approves nothing"
    )
    proposal_manifest["status"]["approvedBy"] = "Policy"
    assert "by the pool's policy. It is Running" in already(
        in_phase(proposal_manifest, "Running"), "Approved"
    )
    rejected = in_phase(proposal_manifest, "Open", approval=approved | {"decision": "Rejected"})
    assert "rejected already" in already(rejected, "Rejected") and already(rejected, "Approved") == ""
    with pytest.raises(Undecidable, match="it was rejected"):
        check_undecided(rejected, "Approved")


def test_a_comment_of_an_earlier_decision_goes_with_it(proposal_manifest):
    earlier = {"decision": "Approved", "evidence": OTHER, "comment": "as last week"}
    proposal = in_phase(proposal_manifest, "Open", approval=earlier)
    assert decision(proposal, "Approved")["spec"]["approval"]["comment"] == ""
    assert decision(proposal, "Approved", "again")["spec"]["approval"]["comment"] == "again"


def test_a_reason_that_is_the_phase_is_said_once(proposal_manifest):
    proposal_manifest["status"].update(phase="Expired", reason="Expired")
    assert "\nIt is Expired: general-2 is newer." in told(ExpertProposal.model_validate(proposal_manifest))
