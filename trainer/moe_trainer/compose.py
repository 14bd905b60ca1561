"""``moe-trainer compose``: the banks of several Experts on one base as one checkpoint.

The result is an ordinary mixture-of-experts model, which transformers and every server of its architecture can load.
Its router chooses for each token among the in-layer experts of the base and of all banks.
"""

from pydantic import Field

from moe_formats import store
from moe_formats.format import Format, digest_of
from moe_formats.job_config import ArtefactRef, ComposeJob
from moe_formats.job_report import ComposeHeadline
from moe_trainer.environment import Environment
from moe_trainer.methods import checkpoint_format
from moe_trainer.methods.composition import compose
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import is_committed


class ComposeReport(Format):
    """What a composition was made from."""

    job: ComposeJob
    base: ArtefactRef
    in_layer_experts: int = Field(
        description="In-layer experts of each mixture layer: the base's and those of all banks."
    )


def run(job: ComposeJob, environment: Environment) -> ComposeHeadline:
    """Compose, or find that it was done before, and return the headline."""
    path = store.composition(job.pool_uid, digest_of(job.to_json()))
    if not is_committed(environment.store, path):
        made = compose(environment.store, [(bank.path, bank.digest) for bank in job.banks])
        report = ComposeReport(job=job, base=made.base, in_layer_experts=made.visible_ME.shape[1])
        checkpoint_format.write(environment.store, path, made.model, made.tokenizer, report.to_json())
    with Committed(environment.store, path) as held:
        held.verify()
        report_text = held.read(checkpoint_format.REPORT)
    found = ComposeReport.model_validate_json(report_text)
    return ComposeHeadline(
        report=digest_of(report_text),
        path=path,
        digest=held.digest,
        in_layer_experts=found.in_layer_experts,
    )
