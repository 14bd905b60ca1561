"""One local cluster with a real Kueue, and the operator with `queue: training`. Skipped, with the reason, where Kueue is not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_local.cluster import LocalCluster

HERE = Path(__file__).parent
CLUSTER_TESTS = HERE.parent / "cluster"
# real_kueue.py, the stage and the small trainer are imported by their names.
sys.path[:0] = [str(HERE), str(CLUSTER_TESTS), str(CLUSTER_TESTS / "small_trainer")]

import real_kueue  # noqa: E402
from environment import make_environment  # noqa: E402
from stage import Stage  # noqa: E402

VALUES = """
queue: training
profiles:
  cpu:
    requests: {cpu: 20m, memory: 32Mi}
    limits: {memory: 1Gi}
operator: {leaseSeconds: 6}
"""

#: One quota for all: `cpu` is set by the tests.
QUEUES = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: any}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: WorkloadPriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: lab}
spec:
  namespaceSelector: {}
  preemption: {withinClusterQueue: LowerPriority}
  resourceGroups:
    - coveredResources: [cpu, memory, ephemeral-storage]
      flavors:
        - name: any
          resources:
            - {name: cpu, nominalQuota: "0"}
            - {name: memory, nominalQuota: 8Gi}
            - {name: ephemeral-storage, nominalQuota: 100Gi}
"""


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A namespace whose queue `training` admits nothing yet."""
    program = real_kueue.build()
    root = tmp_path_factory.mktemp("queues")
    values, folder = root / "values.yaml", root / "kueue"
    values.write_text(VALUES)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_LOCAL_STATE", str(root / "state"))
        cluster = LocalCluster("queues")
        kueue = None
        try:
            cluster.up(
                values=[values], images={"moe-operator/trainer": make_environment(root / "small-trainer")}
            )
            kueue = real_kueue.start(program, cluster, folder)
            cluster.kubectl("apply", "--server-side", "-f", "-", stdin=QUEUES)
            yield Stage(cluster, "research")
        finally:
            if kueue is not None:
                kueue.terminate()
                kueue.wait(30)
            cluster.down(delete=True)
