"""Our TorchX scheduler renders one Job and does nothing else."""

import pytest
from golden_manifests import CLAIM, an_expert, chart_config
from torchx.specs import AppDef, Role, macros

from moe_operator.builders.torchx_scheduler import JOB, JobOptions, create_scheduler


def options() -> JobOptions:
    config = chart_config()
    return JobOptions(
        owner=an_expert("cpu"),
        labels={"a": "b"},
        config_digest="sha256:00",
        claim=CLAIM,
        profile=config.profiles["cpu"],
        devices=1,
        config=config,
    )


def test_an_app_of_two_nodes_is_a_gang_of_two_pods_that_know_their_index() -> None:
    role = Role(
        name="train", image="i", entrypoint="run", args=[macros.replica_id, macros.app_id], num_replicas=2
    )
    job = create_scheduler("test").submit_dryrun(AppDef(name="app", roles=[role]), {JOB: options()}).request
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command == ["run", "$(JOB_COMPLETION_INDEX)", "app"]


def test_an_app_with_two_roles_is_refused() -> None:
    role = Role(name="train", image="i", entrypoint="run")
    with pytest.raises(ValueError, match="2 roles"):
        create_scheduler("test").submit_dryrun(AppDef(name="app", roles=[role, role]), {JOB: options()})


def test_it_submits_lists_and_cancels_nothing() -> None:
    scheduler = create_scheduler("test")
    app = AppDef(name="app", roles=[Role(name="train", image="i", entrypoint="run")])
    with pytest.raises(NotImplementedError, match="request"):
        scheduler.schedule(scheduler.submit_dryrun(app, {JOB: options()}))
    assert scheduler.list() == []
    assert scheduler.describe("app") is None
