"""Tables show what the status holds and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from moe_client.tables import BAR_WIDTH, age, bar, experts_table, matrix_table, proposals_table
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision


def drawn(table) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("share", "full"), [(0, 0), (0.5, BAR_WIDTH // 2), (1, BAR_WIDTH), (7, BAR_WIDTH), (-1, 0)]
)
def test_a_bar_is_as_long_as_its_share(share, full):
    assert bar(share).count("█") == full
    assert len(bar(share)) == BAR_WIDTH


def test_a_bar_shows_less_than_a_cell():
    assert bar(0.5 / BAR_WIDTH)[0] == "▌"


def test_an_expert_that_was_never_looked_at_is_pending(expert_manifest):
    text = drawn(experts_table([Expert.model_validate(expert_manifest)], width=200))
    assert "mathematics" in text and "Pending" in text


def test_progress_is_drawn_from_steps(expert_manifest):
    expert_manifest["status"] = {"training": {"summary": "25%", "eta": "30s", "step": 1, "maxSteps": 4}}
    text = drawn(experts_table([Expert.model_validate(expert_manifest)], width=200))
    assert "████ " in text and "25%" in text and "30s" in text


def test_a_narrow_terminal_gets_fewer_columns_rather_than_cut_ones(expert_manifest):
    text = drawn(experts_table([Expert.model_validate(expert_manifest)], width=80))
    assert "TARGETS" in text
    assert "REASON" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_the_matrix_has_a_row_for_the_base_once(revision_manifest):
    revision = ExpertRevision.model_validate(revision_manifest)
    text = drawn(matrix_table({"mathematics": revision}))
    assert [line.split()[0] for line in text.splitlines() if line.strip()] == [
        "BITS",
        "general",
        "mathematics",
    ]
    assert "2.500" in text and "2.000" in text


def test_unknown_contamination_has_a_column_where_there_is_some(revision_manifest):
    known = ExpertRevision.model_validate(revision_manifest)
    assert "CONTAMINATION" not in drawn(matrix_table({"mathematics": known}))
    revision_manifest["spec"]["inputs"]["parent"] |= {"revision": "imported", "contamination": "Unknown"}
    revision_manifest["status"]["evidence"]["scores"] = {"contamination": "Unknown"}
    unknown = ExpertRevision.model_validate(revision_manifest)
    text = drawn(matrix_table({"mathematics": unknown, "code": known}))
    assert {line.split()[0]: line.split()[-1] for line in text.splitlines() if line.strip()} == {
        "BITS": "CONTAMINATION",
        "imported": "Unknown",
        "mathematics": "Unknown",
        "general": "-",
        "code": "-",
    }


def test_a_revision_without_evidence_has_no_row(revision_manifest):
    del revision_manifest["status"]["evidence"]
    text = drawn(matrix_table({"mathematics": ExpertRevision.model_validate(revision_manifest)}))
    assert "mathematics" not in text


def test_a_proposal_without_a_status_is_pending(proposal_manifest):
    proposal_manifest.pop("status")
    proposal_manifest["spec"] |= {"act": "RollBack", "revision": "mathematics-1"}
    text = drawn(proposals_table([ExpertProposal.model_validate(proposal_manifest)]))
    assert "RollBack to mathematics-1" in text and "Pending" in text


def test_a_narrow_terminal_gets_the_whole_name_of_a_proposal(proposal_manifest):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(proposals_table([ExpertProposal.model_validate(proposal_manifest)]))
    assert "mathematics-rebase-1a2b3c4d" in console.export_text()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d"), (-5, "0s")]
)
def test_an_age_is_in_its_largest_unit(seconds, text):
    now = datetime(2026, 1, 9, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == text
    assert age(None, now) == ""
