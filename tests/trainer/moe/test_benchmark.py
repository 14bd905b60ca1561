"""benchmarks/moe_layer.py and its parts work. Peers that take long to import are left out here."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import moe_layer  # noqa: E402
from moe_bench import first_device  # noqa: E402
from moe_bench.cases import ROUTINGS, TINY, Case, Routing, Shape, draw_batch, draw_choice  # noqa: E402
from moe_bench.first_device import OfBackend  # noqa: E402
from moe_bench.graphs import PROBE_BYTES, check_allocator  # noqa: E402
from moe_bench.layers import LAYERS, TRANSFORMERS  # noqa: E402
from moe_bench.measure import measure  # noqa: E402
from moe_bench.table import table  # noqa: E402
from moe_bench.timing import Samples, Spread  # noqa: E402

LEFT_OUT = {name: "slow to import" for name in LAYERS if name.startswith(TRANSFORMERS.format(""))}


@pytest.mark.parametrize("kind", ["train", "decode", "memory"])
def test_a_case_gives_errors_memory_and_times_of_what_is_installed_and_reasons_for_the_rest(
    kind: str,
) -> None:
    announced: list[tuple[str, str]] = []
    case = Case(kind, TINY.shape)  # type: ignore[arg-type]
    result = measure(case, "cpu", LEFT_OUT, 2, lambda layer, doing: announced.append((layer, doing)))
    assert set(result["layers"]) == set(LAYERS)
    for name in ("ours, torch", "torch grouped products"):
        layer = result["layers"][name]
        assert max(layer["errors"].values()) < (0.02 if kind == "memory" else 1e-5)
        assert len(layer["errors"]) == (1 if kind == "decode" else 5)
        assert ("ms" in layer) == (kind != "memory")
        assert ("keptBytes" in layer) == (kind != "decode")
        assert (name, "errors and memory") in announced
    assert all({"absent", "failed"} & set(result["layers"][name]) for name in LEFT_OUT)
    text = table({"cases": {case.name: result}, "notMeasured": {"another": "no time"}})
    assert all(name in text for name in LAYERS)
    assert "another: not measured: no time" in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_batch_leads_the_router_to_the_choice_that_was_drawn_in_any_precision(
    routing: Routing, dtype: torch.dtype
) -> None:
    case = Case("train", Shape("", 200, 48, 8, 32, 4), routing)
    generator = torch.Generator().manual_seed(1)
    router_ED = torch.randn(32, 48, generator=generator) / 48**0.5
    batch = draw_batch(case, router_ED.to(dtype), generator)
    chosen_NK = (batch.x_ND.to(dtype) @ router_ED.to(dtype).T).topk(4, dim=1).indices
    torch.testing.assert_close(chosen_NK.sort().values, batch.experts_NK.sort().values)


def test_routings_are_as_skewed_as_they_say() -> None:
    shares = {}
    for routing in ROUTINGS:
        choice_NK = draw_choice(Shape("", 4000, 0, 0, 16, 2), routing, torch.Generator().manual_seed(0))
        assert all(len(set(row)) == 2 for row in choice_NK[:50].tolist())
        shares[routing] = (
            torch.bincount(choice_NK.flatten(), minlength=16).sort(descending=True).values / 8000
        )
    assert shares["uniform"][0] < 1.2 / 16
    assert shares["hot"][0] == pytest.approx(0.3, abs=0.02)
    assert shares["hot"][1] < 1.2 * 0.7 / 15
    assert shares["zipf"][0] > 1.2 * shares["zipf"][1] > 1.4 * shares["zipf"][2]


def test_ratios_pair_the_times_of_one_round() -> None:
    samples = Samples()
    for slow in (1.0, 10.0, 100.0):
        samples.add("a", [2 * slow, slow])
        samples.add("b", [slow])
    samples.add("a", [5.0, 5.0])
    assert samples.ratio("a", "b") == Spread(3.0, 3.0, 3.0)


class Workers:
    """Workers that end at one layer as long as it is not left out, and measure the case after that."""

    def __init__(self, ends_at: str) -> None:
        self.ends_at = ends_at
        self.started = 0

    def lines(
        self, names: list[str], without: dict[str, dict[str, str]], options: argparse.Namespace
    ) -> Iterator[dict[str, Any]]:
        self.started += 1
        for name in list(names):
            yield {"case": name, "layer": "", "doing": "drawing weights and batches"}
            for layer in ("ours", "theirs"):
                if layer not in without.get(name, {}):
                    yield {"case": name, "layer": layer, "doing": "timing"}
                    if layer == self.ends_at:
                        return
            yield {"case": name, "result": {"left out": dict(without.get(name, {}))}}


def test_a_layer_that_takes_the_worker_down_is_left_out_and_the_case_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = Workers(ends_at="theirs")
    monkeypatch.setattr(moe_layer, "lines_of_worker", workers.lines)
    found = dict(moe_layer.measured(["a", "b"], argparse.Namespace(minutes=1.0)))
    assert found == {
        name: {"left out": {"theirs": "ended the process, or hung, at: timing"}} for name in ("a", "b")
    }
    assert workers.started == 3


def test_a_case_at_which_every_worker_ends_is_given_up_and_the_next_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lines(names: list[str], *rest: Any) -> Iterator[dict[str, Any]]:
        yield {"case": names[0], "layer": "", "doing": "drawing weights and batches"}
        if names[0] == "b":
            yield {"case": "b", "result": {"fine": True}}

    monkeypatch.setattr(moe_layer, "lines_of_worker", lines)
    found = dict(moe_layer.measured(["a", "b"], argparse.Namespace(minutes=1.0)))
    assert found == {"a": "the process ended, or hung, at: drawing weights and batches", "b": {"fine": True}}


def test_cases_for_which_no_time_is_left_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moe_layer, "lines_of_worker", lambda *given: iter(()))
    found = dict(moe_layer.measured(["a", "b"], argparse.Namespace(minutes=0.0)))
    assert found == dict.fromkeys("ab", "0 minutes were over")


def test_a_worker_measures_what_it_is_told_in_a_process_of_its_own(tmp_path: Path) -> None:
    options = argparse.Namespace(device="cpu", rounds=1, silence=90.0)
    skipped = {TINY.name: dict.fromkeys(LAYERS, "not now")}
    lines = list(moe_layer.lines_of_worker([TINY.name], skipped, options))
    assert lines[0] == {"case": TINY.name, "layer": "", "doing": "drawing weights and batches"}
    assert lines[-1]["result"]["plainProduct"]["tflops"] > 0


class Allocator:
    """torch.cuda's allocator as far as the check asks, with what a failed capture may have done to it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, left: int = 0, capturing: bool = False, broken: bool = False
    ):
        self.allocated = self.most = left
        grown = 0 if broken else PROBE_BYTES

        class Probe:
            def __init__(probe) -> None:
                self.allocated += grown
                self.most = max(self.most, self.allocated)

            def __del__(probe) -> None:
                self.allocated -= grown

        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: self.allocated)
        monkeypatch.setattr(torch, "empty", lambda *_, **__: Probe())


def test_an_allocator_that_survived_a_failed_capture_is_used_on(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = Allocator(monkeypatch, left=100)
    check_allocator(100)
    assert (allocator.most, allocator.allocated) == (100 + PROBE_BYTES, 100)


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        ({"capturing": True}, "goes on"),
        ({"left": 4096}, "left 4096 bytes allocated"),
        ({"broken": True}, f"{PROBE_BYTES} bytes counted as 0"),
    ],
)
def test_an_allocator_that_a_failed_capture_spoilt_ends_the_process(
    spoilt: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Allocator(monkeypatch, **spoilt)
    with pytest.raises(RuntimeError, match=words):
        check_allocator(0)


@pytest.mark.parametrize("backend", ["cuda", "triton", "torch"])
def test_the_tests_of_one_backend_are_those_that_name_it(backend: str) -> None:
    class Item:
        def __init__(self, **params: str) -> None:
            self.callspec = argparse.Namespace(params=params)

    plain = object()
    items = [Item(backend="cuda"), Item(backend="triton"), Item(backend="torch"), Item(dtype="fp32"), plain]
    kept = list(items)
    OfBackend(backend).pytest_collection_modifyitems(kept)
    assert kept == {"cuda": items[:1], "triton": [items[1], items[3], plain], "torch": items[2:3]}[backend]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no device")
def test_without_a_device_the_first_steps_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert first_device.packages() == first_device.smoke() == first_device.NO_DEVICE
    assert capsys.readouterr().out.endswith("torch finds no CUDA device here\n")


@pytest.mark.parametrize(
    ("rivals", "path"),
    [
        ("", "trainer:benchmarks"),
        (
            "/a b:/c",
            "trainer:benchmarks:/a b:/a b/nvidia_cutlass_dsl/python_packages"
            ":/c:/c/nvidia_cutlass_dsl/python_packages",
        ),
    ],
)
def test_the_first_minutes_search_the_folders_of_rivals(tmp_path: Path, rivals: str, path: str) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$PYTHONPATH"\nexit 1\n')
    python.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHON": str(python),
        **({"RIVALS": rivals} if rivals else {}),
    }
    command = ["bash", BENCHMARKS / "first_device.sh", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(f"nothing was measured: {path}\n")
