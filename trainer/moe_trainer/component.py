"""The TorchX component of a training run: what ``torchx run`` and the operator both start from.

    torchx run -s <scheduler> moe_trainer.component:train --job_config "$(cat job.json)" --image ...

Imports torchx.specs and nothing of torch: the operator renders the AppDef into a Job.
"""

from zlib import crc32

from torchx.specs import AppDef, Resource, Role, macros

#: Ports that the first node's rendezvous listens on: each app has its own, since pods may share an address.
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
    """Run ``moe-trainer train`` on some nodes.

    One process on one node is started as it is; more are started by torchrun, one a device.

    Args:
        job_config: the TrainJob as JSON text (moe_formats.job_config)
        image: the image that holds moe-trainer
        name: name of the app
        nodes: pods, one a node
        processes: processes on each node
        cpu: CPU cores of each node, where the scheduler has no profile that says so
        gpu: devices of each node, likewise
        memory_mb: memory of each node in MB, likewise

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
    """Return the port of an app's rendezvous."""
    return RENDEZVOUS_PORTS[crc32(app.encode()) % len(RENDEZVOUS_PORTS)]


def _torchrun(nodes: int, processes: int, port: int) -> list[str]:
    """Return the command of each node; node 0 is found by the variable that the scheduler sets."""
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
