"""`moectl why` tells what the status holds, in words."""

import pytest

from moe_client.why import why_expert, why_pool
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision


def story(expert_manifest, *revisions) -> str:
    return "\n".join(
        why_expert(
            Expert.model_validate(expert_manifest), [ExpertRevision.model_validate(r) for r in revisions]
        )
    )


def test_a_stalled_expert_says_the_message_and_what_the_reason_means(expert_manifest):
    expert_manifest["status"] = {
        "phase": "Stalled",
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "UnknownProfile",
                "message": "profile 'h200' is not one of cpu",
            }
        ],
    }
    text = story(expert_manifest)
    assert "Ready is False (UnknownProfile): profile 'h200' is not one of cpu" in text
    assert "The message lists the profiles" in text


def test_a_refusal_names_clause_numbers_and_interval(expert_manifest, revision_manifest):
    text = story(expert_manifest, revision_manifest)
    assert "Refused by clause anchor, and these inputs are not trained again" in text
    assert (
        "on the anchor it is 5.1 % worse than current: mean ln(b/b) 0.050 [0.030, 0.070], bound +0.0680"
        in text
    )


def test_a_reason_of_a_newer_operator_is_not_an_error(expert_manifest):
    expert_manifest["status"] = {
        "conditions": [{"type": "Ready", "status": "False", "reason": "FromTheFuture", "message": "soon"}]
    }
    assert "older than the operator" in story(expert_manifest)


def test_an_absent_score_is_said_with_its_reason(expert_manifest):
    expert_manifest["status"] = {"scores": {"absent": {"specializationScore": "NoGain"}}}
    assert "Not measured: specializationScore, since NoGain" in story(expert_manifest)


def test_unknown_contamination_is_said_of_the_comparison_and_of_the_scores(
    expert_manifest, revision_manifest
):
    assert "ontamination" not in story(expert_manifest, revision_manifest)
    unknown = {"contamination": "Unknown"}
    revision_manifest["status"]["evidence"]["scores"] = unknown
    expert_manifest["status"] = {"scores": unknown}
    text = story(expert_manifest, revision_manifest)
    assert "  contamination Unknown: not all training text of the compared models is known" in text
    assert (
        "\nContamination Unknown: not all training text of this revision, or of what it was compared with"
        in text
    )


def test_an_open_proposal_is_named_with_its_reason_and_the_command_that_approves_it(
    expert_manifest, proposal_manifest
):
    expert, proposal = (
        Expert.model_validate(expert_manifest),
        ExpertProposal.model_validate(proposal_manifest),
    )
    text = "\n".join(why_expert(expert, [], (), [proposal]))
    name = proposal.metadata.name
    assert (
        f"Proposal {name} (Rebase of mathematics) is Open (AwaitingApproval): it waits for a person." in text
    )
    assert (
        "  Why: mathematics-1 starts from general-1, and general-2 was promoted since. Effect: promised -4.0 %"
        in text
    )
    assert f"  To approve it: moectl approve {name} -n default" in text


@pytest.mark.parametrize("phase", ["Done", "Rejected", "Superseded"])
def test_a_proposal_that_is_over_is_not_named(expert_manifest, proposal_manifest, phase):
    proposal_manifest["status"]["phase"] = phase
    proposal = ExpertProposal.model_validate(proposal_manifest)
    text = "\n".join(why_expert(Expert.model_validate(expert_manifest), [], (), [proposal]))
    assert proposal.metadata.name not in text


def test_a_pool_names_its_proposals_and_the_acts_that_its_policy_no_longer_approves(proposal_manifest):
    row = {
        "act": "Rebase",
        "mode": "Auto",
        "effective": "Propose",
        "since": "t",
        "missed": ["a-rebase-1", "b-rebase-2"],
    }
    pool = {
        "metadata": {"name": "first-pool"},
        "spec": {"storage": {"size": "1Gi"}},
        "status": {"lifecycle": {"acts": [row]}},
    }
    text = "\n".join(
        why_pool(ExpertPool.model_validate(pool), [], [ExpertProposal.model_validate(proposal_manifest)])
    )
    assert "Rebase of mathematics" in text
    assert (
        "Act Rebase is Propose, not Auto as the spec says, since the promised effect of a-rebase-1, b-rebase-2"
        in text
    )
