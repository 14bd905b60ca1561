"""One real cluster for the session: control plane, node agent, and the operator installed by its chart."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moe_local.cluster import LocalCluster

# stage.py, the small trainer's environment.py and the benchmarks are imported by their names.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "small_trainer"), str(HERE.parents[1] / "benchmarks")]

from environment import make_environment  # noqa: E402
from stage import Stage  # noqa: E402

REAL = "moe-operator/real-trainer"
GRADER = "moe-operator/test-grader"

VALUES = f"""
graders:
  # small_grader.py
  alphabet:
    image: {GRADER}:test
    command: [grade]
    limits: {{cpu: 20m, memory: 64Mi}}
profiles:
  # The small trainer: light, so that several Experts train at once on two cores.
  cpu:
    requests: {{cpu: 20m, memory: 32Mi}}
    limits: {{memory: 1Gi}}
  # The real one, for the tests that are marked real_training.
  real:
    description: The real trainer.
    image: {REAL}:test
    requests: {{cpu: 200m, memory: 256Mi}}
    limits: {{memory: 4Gi}}
    threads: 1
# So every test here also shows that the policy refuses nothing that the operator has to do.
admissionPolicy: {{enabled: true}}
operator:
  sweepSeconds: 20
  leaseSeconds: 6
"""


@pytest.fixture(scope="session")
def grader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for the grader's image: its program, and the file that says how it does."""
    folder = tmp_path_factory.mktemp("grader")
    interpreter = Path(sys._base_executable).resolve()
    (folder / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\n")
    (folder / "mood").write_text("well")
    (folder / "bin").mkdir()
    program = folder / "bin" / "grade"
    program.write_text(f"#!{interpreter}\n" + (HERE / "small_grader.py").read_text())
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory, grader: Path) -> Iterator[Callable[[], LocalCluster]]:
    """Start the cluster, or what of it does not run, with the small trainer as the trainer's image."""
    root = tmp_path_factory.mktemp("cluster")
    values = root / "values.yaml"
    values.write_text(VALUES)
    images = {
        "moe-operator/trainer": make_environment(root / "small-trainer"),
        REAL: Path(sys.prefix),
        GRADER: grader,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_LOCAL_STATE", str(root / "state"))
        cluster = LocalCluster("tests")

        def up() -> LocalCluster:
            cluster.up(values=[values], images=images)
            return cluster

        yield up
        cluster.down(delete=True)


@pytest.fixture(scope="session")
def cluster(start: Callable[[], LocalCluster]) -> LocalCluster:
    """Return the one cluster of the session."""
    return start()


@pytest.fixture(scope="session")
def new_stage(cluster: LocalCluster) -> Callable[[str], Stage]:
    """Make a namespace of a name that no other test has."""
    numbers = itertools.count(1)
    return lambda name: Stage(cluster, f"{name}-{next(numbers)}")


@pytest.fixture
def stage(new_stage: Callable[[str], Stage], request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A namespace of the test's own; its Experts and pools go with the test."""
    stage = new_stage("test")
    yield stage
    stage.clear()
