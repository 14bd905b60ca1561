from torchx.specs import macros

from moe_trainer.component import RENDEZVOUS_PORTS, rendezvous_port, train

VALUES = macros.Values(img_root="", app_id="app-1", replica_id="0", rank0_env="RANK0_HOST")


def test_one_process_on_one_node_runs_plain_python() -> None:
    app = train(job_config="{}", image="image", name="math-1-a1")
    (role,) = app.roles
    assert (app.name, role.image, role.num_replicas, role.max_retries) == ("math-1-a1", "image", 1, 0)
    assert [role.entrypoint, *role.args] == ["moe-trainer", "train"]
    assert role.port_map == {}


def test_several_processes_meet_at_node_zero() -> None:
    role = VALUES.apply(train(job_config="{}", image="image", nodes=4, processes=8, gpu=8).roles[0])
    assert role.entrypoint == "torchrun"
    assert {
        "--nnodes=4",
        "--nproc_per_node=8",
        "--rdzv_id=app-1",
        f"--rdzv_endpoint=$(RANK0_HOST):{rendezvous_port('train')}",
    } <= set(role.args)
    assert role.args[-2:] == ["moe_trainer.main", "train"]
    assert (role.num_replicas, role.resource.gpu) == (4, 8)


def test_gangs_on_one_machine_meet_at_ports_of_their_own() -> None:
    ports = {rendezvous_port(f"expert-{number}-a1") for number in range(20)}
    assert len(ports) > 15 and ports <= set(RENDEZVOUS_PORTS)


def test_the_config_reaches_the_container_as_it_was_given() -> None:
    config = '{"path": "$HOME/${app_id}/$$x"}'
    role = VALUES.apply(train(job_config=config, image="image").roles[0])
    assert role.env["MOE_JOB_CONFIG"] == config
