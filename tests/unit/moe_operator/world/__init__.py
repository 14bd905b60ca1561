"""A cluster in memory, on which the operator's own cache, gather, planners, triggers and applier run.

A test applies objects as a user would and lets time pass; the clock jumps from one due date to the next.

| Room | What it is |
|---|---|
| world.py | World: the scene with a clock, a cluster that acts and an operator: settle, run, fork, kill |
| scene.py | The objects of a pool: what users apply, change and delete, and what a test reads |
| operator_process.py | One life of the operator: the real cache, queue, gather, planners and applier, joined as in main.py |
| api_server.py | The objects, by the API server's rules: versions, generations, conflicts, server-side apply, watches |
| client.py | ApiClient's methods on those objects, with a place to be killed at before every write |
| controllers.py | The cluster's controllers: Jobs and Deployments get pods and statuses, claims are bound, orphans go |
| kubelet.py | The nodes: pods get scheduled, run, get ready, end with an exit code and last words; gateways read their policy |
| pod_status.py | What a kubelet writes into a pod's status |
| manifests.py | What the others read out of manifests |
| trainer.py | What the trainer reports: each Job's headline, from its own config |
| invariants.py | What must hold before and after every write of the operator |
"""

from world.invariants import Broken
from world.scene import POOL
from world.trainer import digest
from world.world import CONFIG, START, World

__all__ = ["CONFIG", "POOL", "START", "Broken", "World", "digest"]
