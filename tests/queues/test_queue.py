"""With a real Kueue: what waits says for what, in Kueue's words, and a training that is preempted goes on where it was."""

import json
import os
from pathlib import Path

import yaml
from small_trainer.behaviour import Behaviour
from stage import Json, Stage

QUEUE = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: training, namespace: research}
spec: {clusterQueue: lab}
"""

INTRUDER = """
apiVersion: batch/v1
kind: Job
metadata:
  name: intruder
  namespace: research
  labels: {kueue.x-k8s.io/queue-name: training, kueue.x-k8s.io/priority-class: high}
spec:
  suspend: true
  template:
    spec:
      restartPolicy: Never
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: c
          image: moe-operator/trainer:0.1.0
          command: [python, -c, "import time; time.sleep(600)"]
          resources: {requests: {cpu: 20m, memory: 32Mi}}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


def set_quota(stage: Stage, cpu: str) -> None:
    change = [
        {"op": "replace", "path": "/spec/resourceGroups/0/flavors/0/resources/0/nominalQuota", "value": cpu}
    ]
    stage.cluster.kubectl("patch", "clusterqueue", "lab", "--type=json", "-p", json.dumps(change))


def waits(stage: Stage, name: str, type_: str, *words: str) -> Json:
    """Wait until a condition's message has all these words."""

    def found() -> Json | None:
        condition = stage.condition(name, type_)
        return condition if all(word in condition.get("message", "") for word in words) else None

    record(stage, name)
    return stage.wait(f"{name} {type_}: {words}", found)


def record(stage: Stage, name: str) -> None:
    """Write down Kueue's Workloads where RECORD names a folder, for the unit tests of what is read from them."""
    if folder := os.environ.get("RECORD"):
        text = stage.cluster.kubectl("get", "workloads", "-n", stage.namespace, "-o", "yaml").stdout
        number = len(list(Path(folder).iterdir()))
        (Path(folder) / f"{number:02}-{name}.yaml").write_text(text)


def test_a_queue_that_is_missing_too_small_or_preempted_says_so_and_training_goes_on(stage: Stage) -> None:
    stage.write("text")
    stage.pool()
    training = {"maxSteps": 60, "checkpointEvery": 5}
    stage.expert("text", seed=Behaviour.SLOW, training=training)

    # The queue does not exist yet.
    waits(stage, "text", "DataReady", "waits for queue training: ", "LocalQueue training doesn't exist")

    # It admits nothing.
    stage.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=QUEUE)
    said = waits(
        stage, "text", "DataReady", "waits for queue training: ", "insufficient", "cpu in flavor any"
    )
    assert (said["status"], said["reason"]) == ("False", "WaitingForData")

    # There is quota for one Job: the snapshot runs, then the training.
    set_quota(stage, "30m")
    stage.wait("training", lambda: stage.status("text").get("training", {}).get("step", 0) >= 7)

    # Somebody more important takes the quota.
    stage.create("Job", yaml.safe_load(INTRUDER))
    waits(stage, "text", "Trained", "waits for queue training: ", "it was evicted (Preempted): ")
    shown = stage.status("text")["training"]
    assert (shown["summary"], shown.get("eta", "")) == ("queued", "")

    # When it is gone, training goes on as the same attempt, from its checkpoint.
    stage.delete("Job", "intruder")
    stage.wait_ready("text", seconds=180)
    revision = stage.status("text-1", "ExpertRevision")
    assert (revision["attempts"], revision["verdict"]["outcome"]) == (1, "Promoted")
    assert stage.names("Job", "text-1-a") == ["text-1-a1"]
