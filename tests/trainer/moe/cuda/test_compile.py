"""Every kernel as NVRTC makes it for sm_90a: what the assembler reports, and what stands in the machine code."""

import re
import subprocess
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
import triton.knobs

from moe_trainer.moe.compiled import CompilationError
from moe_trainer.moe.cuda import compile as compiling
from moe_trainer.moe.cuda.compile import KERNELS, Binary, Kernel
from moe_trainer.moe.cuda.launch import SHARED_BYTES, THREADS

compiled = cache(compiling.compile_kernel)
every_kernel = pytest.mark.parametrize(
    "kernel", KERNELS, ids=lambda kernel: f"{kernel.name}-{kernel.cluster}"
)


@cache
def machine_code(kernel: Kernel) -> str:
    """Return the instructions of a compiled kernel, by the disassembler that comes with Triton."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled(kernel).cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-sass", file.name]
        found = subprocess.run(command, capture_output=True, check=True)
    return found.stdout.decode(errors="replace")


@every_kernel
def test_nothing_spills_and_the_assembler_does_not_serialise_the_products(kernel: Kernel) -> None:
    log = compiled(kernel).log
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    assert "warning" not in log.lower(), log  # such as C7508, C7510: setmaxnreg ignored, wgmma serialised


@every_kernel
def test_the_registers_at_entry_fit_the_threads(kernel: Kernel) -> None:
    found = re.search(r"Used (\d+) registers", compiled(kernel).log)
    assert found and int(found[1]) * THREADS <= 65536


@every_kernel
def test_the_main_loop_is_four_products_on_the_tensor_cores_and_two_waits(kernel: Kernel) -> None:
    code = machine_code(kernel)
    assert len(re.findall(r"HGMMA\.64x256x16\.F32\.BF16", code)) == 4
    assert len(re.findall(r"WARPGROUP\.DEPBAR", code)) == 2  # one step behind, and at a tile's end
    assert not re.search(r"\b(LDL|STL)\b", code), "a register array that lives in memory"


@every_kernel
def test_registers_move_from_the_producer_to_the_consumers(kernel: Kernel) -> None:
    code = machine_code(kernel)
    assert "USETMAXREG.DEALLOC.CTAPOOL 0x28" in code  # 40
    assert "USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0xe8" in code  # 232


@every_kernel
def test_weights_come_by_the_copy_engine_and_rows_leave_16_bytes_at_a_time(kernel: Kernel) -> None:
    code = machine_code(kernel)
    assert ("UTMALDG.4D.MULTICAST" in code) == (kernel.cluster == 2)
    assert ("LDGSTS.E.BYPASS.128" in code) == (kernel.name != "down")  # rows that are gathered
    assert "STG.E.128" in code
    assert len(re.findall(r"STG\.E ", code)) <= 2 * (kernel.name == "d_hidden")  # one sum a row


@every_kernel
def test_no_fence_of_the_whole_device_stands_in_a_loop(kernel: Kernel) -> None:
    code = machine_code(kernel)
    assert len(re.findall(r"MEMBAR\.\w+\.GPU", code)) == code.count("UCGABAR_ARV") == 2  # begin and end


def test_stages_and_barriers_fit_in_the_shared_memory_of_a_block() -> None:
    assert SHARED_BYTES <= 227 * 1024


def test_a_kernel_that_does_not_compile_is_an_error_with_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "up.cu").write_text("nonsense;")
    monkeypatch.setattr(compiling, "SOURCE", tmp_path)
    with pytest.raises(CompilationError, match=r"(?s)up.cu does not compile for sm_90a.*nonsense"):
        compiling.compile_kernel(Kernel("up", 1))


def test_a_kernel_is_compiled_once_and_then_read_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Kernel] = []

    def compile_kernel(kernel: Kernel) -> Binary:
        asked.append(kernel)
        return Binary(b"a compiled kernel", "")

    monkeypatch.setenv("MOE_SCRATCH", str(tmp_path))
    monkeypatch.setattr(compiling, "compile_kernel", compile_kernel)
    found = compiling.cubin.__wrapped__
    assert found(Kernel("down", 2)) == found(Kernel("down", 2)) == b"a compiled kernel"
    assert asked == [Kernel("down", 2)]


def test_the_digest_names_source_and_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {compiling.digest(kernel) for kernel in KERNELS}
    assert len(digests) == len(KERNELS)
    for path in compiling.SOURCE.iterdir():
        (tmp_path / path.name).write_text(path.read_text() + "\n// another word")
    monkeypatch.setattr(compiling, "SOURCE", tmp_path)
    assert digests.isdisjoint(compiling.digest(kernel) for kernel in KERNELS)
