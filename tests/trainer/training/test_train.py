"""Training, and all that can happen to it."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_formats.failure import JobError, TransientError, from_exception
from moe_formats.job_report import TrainHeadline
from moe_trainer import train
from moe_trainer.storage.committed import verify
from moe_trainer.storage.committing import is_committed
from moe_trainer.streaming.batches import DocumentEnds
from moe_trainer.text.tokenizer import BOS, EOS
from moe_trainer.training import checkpoint
from moe_trainer.training.run import Run, prepare
from moe_trainer.training.validation import validate

from .conftest import Pool


def test_training_learns_and_commits_what_it_reports(pool: Pool) -> None:
    made = pool.train(pool.job(max_steps=60))
    report = pool.report(made)
    assert made.steps == len(report["losses"]) == 60
    assert made.tokens == 60 * 256
    assert made.final_loss == pytest.approx(sum(report["losses"][-4:]) / 4)
    assert made.final_loss < 0.6 * report["losses"][0]
    assert made.validation_bits_per_byte == report["validations"]["60"]
    assert made.validation_bits_per_byte < 0.6 * report["validations"]["4"]
    verify(pool.store, made.path, made.digest)
    assert not pool.checkpoints(pool.job(max_steps=60)).exists()


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(pool: Pool) -> None:
    first, second = (pool.train(pool.job(run=run)) for run in ("one", "two"))
    other = pool.train(pool.job(run="three").model_copy(update={"seed": 8}))
    assert pool.weights(first) == pool.weights(second)
    assert pool.report(first)["losses"] == pool.report(second)["losses"]
    assert pool.weights(other) != pool.weights(first)


def test_activations_that_are_computed_again_give_the_same_bits(pool: Pool) -> None:
    kept, again = (
        pool.train(pool.job(run=str(recompute), recompute=recompute)) for recompute in (False, True)
    )
    assert pool.weights(kept) == pool.weights(again)


def test_a_finished_run_is_reported_again_and_not_repeated(pool: Pool) -> None:
    first = pool.train(pool.job())
    (pool.store / "parent" / "manifest.json").unlink()  # so that training again would fail
    assert pool.train(pool.job(attempt=3)) == first


def test_an_artefact_that_was_damaged_is_made_again_beside_it(pool: Pool) -> None:
    first = pool.train(pool.job())
    weights = pool.weights(first)
    (pool.store / first.path / "model.safetensors").write_bytes(b"damaged")
    second = pool.train(pool.job(attempt=2))
    assert second.path != first.path
    assert pool.weights(second) == weights


_KILL = """
import os
from pathlib import Path
import moe_trainer.{module} as module
real, calls = module.{name}, 0

def wrapped(*arguments, **keywords):
    global calls
    calls += 1
    if calls == {call}:
        os._exit(137)  # as kill -9: nothing is cleaned up, nothing is flushed
    return real(*arguments, **keywords)

module.{name} = wrapped
"""


def unbroken(pool: Pool) -> TrainHeadline:
    return pool.train(pool.job(run="unbroken"))


@pytest.mark.parametrize(
    ("module", "name", "call", "resumed_from"),
    [
        ("train", "take_step", 2, 0),  # before the first checkpoint
        ("train", "take_step", 8, 6),  # between checkpoints
        (
            "storage.committing",
            "_write_manifest",
            1,
            0,
        ),  # all files of the tokens written, their manifest not
        (
            "storage.committing",
            "_write_manifest",
            3,
            3,
        ),  # all files of a checkpoint written, its manifest not
        ("training.checkpoint", "_newest_first", 4, 9),  # after a checkpoint, before the oldest is dropped
        (
            "storage.committing",
            "_write_manifest",
            5,
            9,
        ),  # all files of the artefact written, its manifest not
        ("training.report", "headline", 1, 0),  # the artefact is committed, its headline not left
    ],
)
def test_killed_anywhere_twice_the_run_ends_as_if_unbroken(
    pool: Pool, module: str, name: str, call: int, resumed_from: int
) -> None:
    whole = unbroken(pool)
    for attempt in (1, 2):
        code = _KILL.format(module=module, name=name, call=call if attempt == 1 else 1)
        process = pool.fork(pool.job(attempt=attempt), code)
        process.communicate(timeout=250)
        assert process.returncode == 137
    made = pool.train(pool.job(attempt=3))
    assert made.resumed_from == resumed_from
    assert pool.report(made)["losses"] == pool.report(whole)["losses"]
    assert pool.report(made)["validations"] == pool.report(whole)["validations"]
    assert pool.weights(made) == pool.weights(whole)


def test_sigterm_checkpoints_and_the_next_attempt_goes_on_exactly(pool: Pool) -> None:
    whole = unbroken(pool)
    process = pool.fork(pool.job(checkpoint_every=1000), _TERMINATE)
    process.communicate(timeout=250)
    assert process.returncode == 1
    headline = pool.headline()
    assert (headline["reason"], headline["retryable"]) == ("Interrupted", True)
    assert "step 5;" in headline["message"]
    made = pool.train(pool.job(attempt=2, checkpoint_every=1000))
    assert made.resumed_from == 5
    assert pool.weights(made) == pool.weights(whole)


_TERMINATE = """
import os, signal
from moe_trainer import train
real, calls = train.take_step, 0

def wrapped(run):
    global calls
    calls += 1
    if calls == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    return real(run)

train.take_step = wrapped
"""


def test_two_checkpoints_are_kept_and_a_damaged_one_is_skipped_with_its_reason(pool: Pool) -> None:
    whole = unbroken(pool)
    kill = _KILL.format(module="train", name="take_step", call=11)
    pool.fork(pool.job(), kill).communicate(timeout=250)
    folder = pool.checkpoints(pool.job())
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000006", "step-00000009"]
    newest = folder / "step-00000009" / "tensors" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    made = pool.train(pool.job(attempt=2))
    assert made.resumed_from == 6
    assert pool.weights(made) == pool.weights(whole)
    (skipped,) = pool.report(made)["skippedCheckpoints"]
    assert "step-00000009" in skipped and "tensors.safetensors" in skipped


def test_checkpoints_of_other_inputs_are_not_gone_on_from(pool: Pool) -> None:
    pool.fork(pool.job(), _KILL.format(module="train", name="take_step", call=8)).communicate(timeout=250)
    made = pool.train(pool.job(attempt=2, learning_rate=0.001))
    assert made.resumed_from == 0
    assert "other inputs" in pool.report(made)["skippedCheckpoints"][0]


def test_a_loss_that_is_not_finite_ends_the_run_for_good(pool: Pool) -> None:
    job = pool.job()
    # Beyond what anybody may ask for, so that the few steps of a test are enough.
    beyond = job.training.model_copy(update={"learning_rate": 1e30, "gradient_clip": 1e30})
    with pytest.raises(JobError, match=r"LossNotFinite: at step \d+ of 12.*training.learningRate") as failed:
        pool.train(job.model_copy(update={"training": beyond}))
    assert not failed.value.retryable
    assert failed.value.exit_code == 64
    assert not list((pool.store / "pools").rglob("a1"))


def test_a_full_disk_keeps_the_last_checkpoint_and_is_worth_another_attempt(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = unbroken(pool)
    real, calls = checkpoint.save_tensors, []

    def full(path: Path, tensors: dict[str, object]) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, tensors)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_tensors", full)
        with pytest.raises(OSError, match="No space left") as failed:
            pool.train(pool.job())
    known = from_exception(failed.value)
    assert (known.reason, known.retryable, known.exit_code) == ("DiskFull", True, 1)
    made = pool.train(pool.job(attempt=2))
    assert made.resumed_from == 6
    assert pool.weights(made) == pool.weights(whole)


def test_large_checkpoints_are_written_while_training_goes_on(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk holds no step up, and what is written is the state of the step at which it was asked for."""
    whole = unbroken(pool)
    steps_when_written: list[int] = []
    running: list[int] = []
    real_write, real_step = checkpoint.write_tensors, train.take_step

    def slow(*arguments: Any) -> None:
        while len(running) < 3 * len(steps_when_written) + 5:  # two steps after it was asked for
            time.sleep(0.001)
        steps_when_written.append(len(running))
        real_write(*arguments)

    def counted(run: Run) -> float:
        running.append(1)
        return real_step(run)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "AT_ONCE_BYTES", 0)
        patched.setattr(checkpoint, "write_tensors", slow)
        patched.setattr(train, "take_step", counted)
        patched.setattr(train, "commit", _interrupted)
        with pytest.raises(TransientError):
            pool.train(pool.job())
    assert len(steps_when_written) == 3
    while not is_committed(
        pool.checkpoints(pool.job()), "step-00000009"
    ):  # the thread outlives the attempt here
        time.sleep(0.001)
    made = pool.train(pool.job(attempt=2))
    assert made.resumed_from == 9
    assert pool.weights(made) == pool.weights(whole)


def _interrupted(*_: object) -> None:
    raise TransientError("Interrupted", "before the artefact")


def test_what_goes_wrong_in_the_background_ends_the_run_at_the_next_checkpoint(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "AT_ONCE_BYTES", 0)
    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        pool.train(pool.job())
    assert not list(pool.checkpoints(pool.job()).iterdir())


def _can_mount_here() -> bool:
    probe = ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs none /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_mount_here(), reason="this machine lets no user mount a small tmpfs")
def test_a_disk_that_is_really_full_is_named_as_such(pool: Pool, tmp_path: Path) -> None:
    """The store is moved to a tmpfs with room for one checkpoint and no more."""
    small = tmp_path / "small"
    small.mkdir()
    size = sum(path.stat().st_size for path in pool.store.rglob("*") if path.is_file())
    script = (
        f"mount -t tmpfs -o size={size + 900_000} none {small} && cp -r {pool.store}/. {small} && "
        f'{{ "$PYTHON" -m moe_trainer.main train; code=$?; find {small} -path "*step-*" -name manifest.json; exit $code; }}'
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHON": sys.executable,
        "MOE_JOB_CONFIG": pool.job(run="full").to_json(),
        "MOE_STORE": str(small),
        "MOE_TERMINATION_LOG": str(tmp_path / "termination"),
    }
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "step-0000" in done.stdout.splitlines()[-1]
    assert pool.headline()["reason"] == "DiskFull"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("parent", "ArtefactCorrupt"),
        ("snapshot", "ArtefactCorrupt"),
        ("data digest", "ArtefactCorrupt"),
        ("both", "InvalidConfig"),
        ("preset", "UnknownPreset"),
        ("specialization", "InvalidConfig"),
    ],
)
def test_wrong_inputs_fail_at_once_and_for_good(pool: Pool, change: str, reason: str) -> None:
    job = pool.job()
    if change == "parent":
        job = job.model_copy(
            update={"parent": pool.parent.model_copy(update={"digest": "sha256:" + "0" * 64})}
        )
    elif change == "snapshot":
        (pool.store / pool.data.path / "documents.jsonl").write_text("")
    elif change == "data digest":
        job = job.model_copy(update={"data": job.data.model_copy(update={"digest": "sha256:" + "0" * 64})})
    elif change == "both":
        job = job.model_copy(update={"preset": "tiny"})
    elif change == "preset":
        job = job.model_copy(update={"preset": "huge", "parent": None})
    else:
        job = pool.job(specialization_loss_weight=0.1).model_copy(update={"preset": "tiny", "parent": None})
    with pytest.raises(JobError) as failed:
        pool.train(job)
    assert (failed.value.reason, failed.value.exit_code) == (reason, 64)


def test_progress_is_answered_over_http_while_it_trains(pool: Pool, free_port: int) -> None:
    process = pool.start(pool.job(max_steps=100_000), MOE_PROGRESS_PORT=str(free_port))
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                break
        base = f"http://127.0.0.1:{free_port}"
        progress = json.load(urllib.request.urlopen(f"{base}/progress", timeout=60))
        assert 0 < progress["step"] < progress["maxSteps"] == 100_000
        assert progress["loss"] > 0 and progress["tokensPerSecond"] > 0 and progress["etaSeconds"] > 0
        metrics = urllib.request.urlopen(f"{base}/metrics", timeout=60).read().decode()
        assert "moe_trainer_max_steps 100000\n" in metrics
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_documents_can_be_kept_apart_and_sequences_be_shorter_than_the_base_can_see(pool: Pool) -> None:
    together, apart = (pool.train(pool.job(run=str(kept), across_documents=kept)) for kept in (True, False))
    assert pool.weights(together) != pool.weights(apart)
    assert apart.final_loss < 1.2 * together.final_loss
    short = pool.train(pool.job(run="short", context_tokens=32))
    assert short.tokens == together.tokens
    with pytest.raises(JobError, match=r"contextTokens is 65, but the base can see 64 tokens"):
        pool.train(pool.job(run="long", context_tokens=65))


def test_validation_keeps_documents_apart_where_training_does(pool: Pool) -> None:
    run = prepare(pool.job(across_documents=False), pool.store)
    one, other = ([BOS, *text.encode(), EOS] for text in ("The order is", "gamma, then beta."))
    together = torch.tensor([[*one, *other]])
    measured = []
    for ids in (together, torch.tensor([one]), torch.tensor([other])):
        bits, _ = validate(run.model, ids, run.sizes_V, 1, DocumentEnds(BOS, EOS).positions(ids[:, :-1]))
        measured.append(bits * int(run.sizes_V[ids].sum()))
    assert measured[0] == pytest.approx(measured[1] + measured[2], rel=1e-5)
    assert validate(run.model, together, run.sizes_V, 1)[0] != measured[0]


@pytest.mark.parametrize("name", ["checkpoints", "tokens", "a1"])
def test_a_run_writes_to_nothing_and_removes_nothing_outside_of_the_store(
    pool: Pool, tmp_path: Path, name: str
) -> None:
    """Whoever can write to the store puts links in place of the folders of a run."""
    outside = tmp_path / "outside"
    for left_over in (".step-00000003.new-0a1b", "step-00000001", "step-00000002"):
        (outside / left_over).mkdir(parents=True)
        (outside / left_over / "manifest.json").write_text("mine")
    before = sorted(outside.rglob("*"))
    place = pool.checkpoints(pool.job()).parent / name
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    if name == "a1":  # only its own place is taken, which is nobody's before it is committed
        assert (pool.store / pool.train(pool.job()).path).resolve() == place and not place.is_symlink()
    else:
        with pytest.raises(JobError, match=rf"PathNotAllowed: .*{name} is a link that leads out of 'store'"):
            pool.train(pool.job())
    assert sorted(outside.rglob("*")) == before
