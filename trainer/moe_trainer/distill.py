"""``moe-trainer distill``: fit the small table of the Distilled routing strategy. Imports no torch.

    text      prompts from the training side of each domain, labelled with the domain's Expert
    refine    the contexts of held-out segments, labelled by which Experts code the segments best
    judge     cross-fitted by cluster: route on the context, score the segment that follows it
    calibrate fit the temperature on the cross-fitted logits

From the same cells of the matrix follows what other ways of routing would have cost: the best possible one (oracle),
a random one, and Posterior, which asks every Expert for the likelihood of the context.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moe_formats import store
from moe_formats.format import Format, digest_of
from moe_formats.job_config import DistillJob
from moe_formats.job_report import DistillHeadline
from moe_formats.routing_policy import Familiar
from moe_formats.segment_size import CONTEXT_BYTES
from moe_trainer.distilling.examples import FOLDS, Route, prompts_from_text, read_segments
from moe_trainer.distilling.ngram_model import NgramModel, Prompts, fit_temperature, softmax
from moe_trainer.environment import Environment
from moe_trainer.evaluation.matrix import Array
from moe_trainer.evaluation.segments import scorer_version
from moe_trainer.statistics.bootstrap import seed_of
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.files import write_file

TABLE = "table.json"
REPORT = "report.json"

#: Passes over the prompts from training text.
TEXT_EPOCHS = 2
#: Passes over the contexts of the held-out segments.
REFINE_EPOCHS = 2


class DistillReport(Format):
    """Everything a distill Job found."""

    job: DistillJob
    scorer: str = Field(description="Version of segments and scoring.")
    prompt_bytes: int = Field(description="Bytes of a prompt; the segment after them is what is scored.")
    segments: int
    clusters: int
    left_out: tuple[str, ...] = Field(
        description="Holdouts on which not every Expert of the roster was scored."
    )
    distilled: Route = Field(description="Routing by the table, cross-fitted by cluster.")
    posterior: Route = Field(description="Routing to the Expert under which the prompt is most likely.")
    oracle: Route = Field(
        description="Routing each segment to the Expert that codes it best: no way of routing can cost less."
    )
    random: Route = Field(description="Routing to every Expert equally often.")
    familiar: Familiar = Field(description="How prompts of the pool's own domains look.")


def run(job: DistillJob, environment: Environment) -> DistillHeadline:
    """Fit the table, measure what it costs, and commit both.

    Raises JobError: CellsMissing if no holdout of the suite was scored with every Expert of the roster,
    ArtefactCorrupt if a holdout or snapshot is not what its manifest says.
    """
    segments, left_out = read_segments(job, environment.store)
    text = prompts_from_text(job, environment.store)
    contexts = Prompts.of(segments.contexts, segments.labels_SE)
    generator = np.random.default_rng(seed_of("distill", job.to_json()))
    started = NgramModel.empty(len(job.roster)).fitted(text, TEXT_EPOCHS, generator)
    judged_SE = cross_fitted(started, contexts, segments.folds_S, generator)
    temperature = fit_temperature(judged_SE, contexts.targets_PE)
    model = started.fitted(contexts, REFINE_EPOCHS, generator)
    table = model.to_file([expert.name for expert in job.experts], temperature).to_json().encode()
    report = DistillReport(
        job=job,
        scorer=scorer_version(job.segment_bytes),
        prompt_bytes=CONTEXT_BYTES,
        segments=len(segments.contexts),
        clusters=len(set(segments.clusters)),
        left_out=tuple(left_out),
        distilled=segments.route(judged_SE.argmax(axis=1), temperature),
        posterior=segments.route(
            segments.context_nats_SE.argmin(axis=1),
            fit_temperature(-segments.context_nats_SE, contexts.targets_PE),
        ),
        oracle=segments.route(segments.nats_SE.argmin(axis=1)),
        random=segments.random_route(),
        familiar=segments.familiar(softmax(judged_SE / temperature)),
    )
    return _commit(job, environment.store, table, report)


def cross_fitted(
    started: NgramModel, contexts: Prompts, folds_S: npt.NDArray[np.intp], generator: np.random.Generator
) -> Array:
    """Return logits for each context from a model that was not refined on its cluster."""
    logits_SE = np.zeros_like(contexts.targets_PE)
    for fold in range(FOLDS):
        held_S = folds_S == fold
        if held_S.any():
            refined = started.fitted(contexts.only(~held_S), REFINE_EPOCHS, generator)
            logits_SE[held_S] = refined.logits(contexts.only(held_S).buckets_P)
    return logits_SE


def _commit(job: DistillJob, root: Path, table: bytes, report: DistillReport) -> DistillHeadline:
    digest = digest_of(table)
    folder = store.table(job.pool_uid, digest)
    with new_folder(root, folder, "table") as working:
        write_file(working / TABLE, table)
        write_file(working / REPORT, report.to_json().encode())
    with Committed(root, folder) as held:  # the same table may have been committed before
        held.verify()
        found = held.read(REPORT)
    return DistillHeadline(
        report=digest_of(found),
        path=f"{folder}/{TABLE}",
        digest=digest,
        routed_bits_per_byte=report.distilled.bits_per_byte,
        oracle_bits_per_byte=report.oracle.bits_per_byte,
        random_bits_per_byte=report.random.bits_per_byte,
        posterior_bits_per_byte=report.posterior.bits_per_byte,
        accuracy=report.distilled.accuracy,
        posterior_temperature=report.posterior.temperature,
        familiar=report.familiar,
    )
