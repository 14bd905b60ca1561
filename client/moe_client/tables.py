"""Makes tables for the terminal from models. Pure: takes models and returns what rich can print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision

BAR_WIDTH = 16
ALL_COLUMNS = ("NAME", "DOMAIN", "PHASE", "PROGRESS", "ETA", "SCORE", "TARGETS", "REVISION", "REASON")
NARROW_COLUMNS = ("NAME", "PHASE", "PROGRESS", "ETA", "SCORE", "TARGETS")
#: Width of a terminal, in characters, from which on all columns fit.
WIDE = 118
PROPOSAL_COLUMNS = ("NAME", "ACT", "EXPERT", "EFFECT", "STATE", "REASON", "AGE")
#: Colours of phases: what waits for a person, what went well, what did not.
_PROPOSAL_STYLES = {"Open": "yellow", "Done": "green", "Missed": "red", "Void": "red", "Error": "red"}
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """Return a bar of block characters, `width` characters wide, for a share of 0 to 1."""
    cells = max(0.0, min(1.0, share)) * width
    full = int(cells)
    rest = _EIGHTHS[int((cells - full) * 8)] if full < width else ""
    return ("█" * full + rest).ljust(width)


def experts_table(experts: Sequence[Expert], *, width: int) -> Table:
    """Return what `kubectl get experts` shows, with bars for progress; a narrow terminal gets fewer columns."""
    wide = width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    columns = ALL_COLUMNS if wide else NARROW_COLUMNS
    for column in columns:
        table.add_column(column, no_wrap=True)
    for expert in experts:
        cells = _cells(expert, BAR_WIDTH if wide else BAR_WIDTH // 2)
        table.add_row(*(cells[column] for column in columns))
    return table


def proposals_table(proposals: Sequence[ExpertProposal]) -> Table:
    """Return what `kubectl get expertproposals` shows; long texts are wrapped and never cut."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in PROPOSAL_COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column == "NAME")
    for proposal in proposals:
        spec, status = proposal.spec, proposal.status
        phase = status.phase or "Pending"
        table.add_row(
            proposal.metadata.name,
            f"{spec.act} to {spec.revision}" if spec.revision else spec.act.value,
            spec.expert,
            status.effect or "-",
            Text(phase, style=_PROPOSAL_STYLES.get(phase, "")),
            status.reason,
            age(proposal.metadata.creation_timestamp),
        )
    return table


def age(since: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago something was, in its largest unit as kubectl does: `5m`, `3d`; empty if it is not known."""
    if since is None:
        return ""
    seconds = max(int(((now or datetime.now(UTC)) - since).total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _cells(expert: Expert, bar_width: int) -> dict[str, Text | str]:
    status = expert.status
    ready = find_condition(status.conditions, ConditionType.READY)
    stalled = find_condition(status.conditions, ConditionType.STALLED)
    settled = "green" if ready and ready.status == "True" else "yellow"
    style = "red" if stalled and stalled.status == "True" else settled
    return {
        "NAME": expert.metadata.name,
        "DOMAIN": expert.spec.domain or "-",
        "PHASE": Text(status.phase or "Pending", style=style),
        "PROGRESS": _progress(expert, bar_width),
        "ETA": status.training.eta if status.training else "",
        "SCORE": status.score or "-",
        "TARGETS": status.targets or "-",
        "REVISION": status.current_revision or "-",
        "REASON": status.reason,
    }


def _progress(expert: Expert, width: int) -> Text:
    training = expert.status.training
    if training is None or not training.summary:
        return Text(" " * (width + 5))
    share = training.step / training.max_steps if training.max_steps else 0.0
    return Text(f"{bar(share, width)} {training.summary:>4}", style="cyan")


@dataclass(frozen=True)
class MatrixRow:
    """One model's row of the matrix: held-out bits per byte, by domain."""

    bits_per_byte: Mapping[str, float]
    #: `Unknown` where the model may have been trained on held-out text, else None.
    contamination: str | None


def matrix_rows(revisions: Mapping[str, ExpertRevision]) -> dict[str, MatrixRow]:
    """Return the rows of the matrix by Expert, from the promoted revision of each.

    An evaluation also measures the base that it compares with. Where the base's Expert is not among
    `revisions`, its row is taken from there.
    """
    rows: dict[str, MatrixRow] = {}
    for name, revision in revisions.items():
        evidence, parent = revision.status.evidence, revision.spec.inputs.parent
        if evidence is None:
            continue
        if evidence.base_row and parent:
            base = parent.revision.rsplit("-", 1)[0]
            rows.setdefault(base, MatrixRow(evidence.base_row, parent.contamination))
        if evidence.row:
            rows[name] = MatrixRow(evidence.row, evidence.scores.contamination)
    return rows


def matrix_table(revisions: Mapping[str, ExpertRevision]) -> Table:
    """Return the matrix as a table: one row per Expert, one column per domain, held-out bits per byte.

    The lowest value of each column is highlighted. If some row may be contaminated, a last column says which.
    """
    rows = matrix_rows(revisions)
    domains = sorted({domain for row in rows.values() for domain in row.bits_per_byte})
    best = {domain: min(_of(rows, domain)) for domain in domains}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("BITS PER BYTE OF")
    for domain in domains:
        table.add_column(domain, justify="right")
    some_contaminated = any(row.contamination for row in rows.values())
    if some_contaminated:
        table.add_column("CONTAMINATION")
    for name, row in rows.items():
        cells = [_cell(row.bits_per_byte.get(domain), best[domain]) for domain in domains]
        table.add_row(name, *cells, *([row.contamination or "-"] if some_contaminated else []))
    return table


def _of(rows: Mapping[str, MatrixRow], domain: str) -> list[float]:
    return [row.bits_per_byte[domain] for row in rows.values() if domain in row.bits_per_byte]


def _cell(value: float | None, best: float) -> Text:
    if value is None:
        return Text("-")
    return Text(f"{value:.3f}", style="bold green" if value == best else "")
