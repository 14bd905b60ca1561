"""The TorchX component that starts a training run, used by ``torchx run`` and by the operator.

    torchx run -s <scheduler> moe_trainer.component:train --job_config "$(cat job.json)" --image ...

Imports torchx.specs but not torch: the operator turns the AppDef into a Job.
"""

from zlib import crc32

from torchx.specs import AppDef, Resource, Role, macros

#: Ports for the rendezvous on the first node. The port depends on the app's name, since pods may share an address.
RENDEZVOUS_PORTS = range(20_000, 30_000)


def train(
    job_config: str,
    image: str,
    name: str = "train",
    nodes: int = 1,
    processes: int = 1,
    cpu: int = 1,
    gpu: int = 0,
    memory_mb: int = 2048,
) -> AppDef:
    """Run ``moe-trainer train`` on one or more nodes.

    A single process is started directly; several are started by torchrun, one per device.

    Args:
        job_config: the TrainJob as JSON text (moe_formats.job_config)
        image: the image that holds moe-trainer
        name: name of the app
        nodes: number of nodes; each is one pod
        processes: processes on each node
        cpu: CPU cores per node, for schedulers without a hardware profile
        gpu: devices per node, for schedulers without a hardware profile
        memory_mb: memory per node in MB, for schedulers without a hardware profile

    """
    command = ["moe-trainer", "train"]
    if nodes * processes > 1:
        command = _torchrun(nodes, processes, rendezvous_port(name))
    role = Role(
        name="train",
        image=image,
        entrypoint=command[0],
        args=command[1:],
        env={"MOE_JOB_CONFIG": job_config.replace("$", "$$")},  # `$` starts a TorchX macro
        num_replicas=nodes,
        max_retries=0,
        resource=Resource(cpu=cpu, gpu=gpu, memMB=memory_mb),
        port_map={"rendezvous": rendezvous_port(name)} if nodes > 1 else {},
    )
    return AppDef(name=name, roles=[role])


def rendezvous_port(app: str) -> int:
    """Return the port on which an app's processes meet; the same name always gives the same port."""
    return RENDEZVOUS_PORTS[crc32(app.encode()) % len(RENDEZVOUS_PORTS)]


def _torchrun(nodes: int, processes: int, port: int) -> list[str]:
    """Return the command of every node; node 0 is addressed through the variable that the scheduler sets."""
    where = f"$({macros.rank0_env}):{port}" if nodes > 1 else "localhost:0"
    return [
        "torchrun",
        f"--nnodes={nodes}",
        f"--nproc_per_node={processes}",
        "--rdzv_backend=c10d",
        f"--rdzv_endpoint={where}",
        f"--rdzv_id={macros.app_id}",
        "--max_restarts=0",
        "-m",
        "moe_trainer.main",
        "train",
    ]
