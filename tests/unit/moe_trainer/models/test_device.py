"""Memory that a process frees and takes again, with and without being kept. In processes of their own."""

import subprocess
import sys

import pytest

#: Takes and frees 64 MiB twenty times, touching each page; prints the pages that the system had to map for it.
TOUCH = """
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from moe_trainer.models.device import keep_freed_memory\nassert keep_freed_memory()\n"


def pages_mapped(program: str) -> int:
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="settings of glibc")
def test_freed_memory_is_mapped_once_instead_of_every_time() -> None:
    assert pages_mapped(KEEP + TOUCH) < pages_mapped(TOUCH) / 10


def test_where_the_c_library_has_no_such_settings_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    from moe_trainer.models.device import keep_freed_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
