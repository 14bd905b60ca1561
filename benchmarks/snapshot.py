"""How fast snapshots are made, how fast documents are read from their files, and in how much memory.

    python benchmarks/snapshot.py [--bytes 1000000000] [--only making|growing|reading] [--folder DISK]

making: `moe-trainer snapshot`, the whole Job in two processes beside its own, of records of about 2 KB made from
lines of Python's standard library; every fifth is an edited copy of an earlier one. Filters: length, character
ratio, near-duplicates at 0.8; a tenth of the clusters is held out. The same again in a pool that has it all
(refresh: what is known is read and nothing is new), and with a tenth as much new text.

    MB/s      text read per wall clock second, from the start of the process to its end
    peak      largest sum of resident memory over the processes of the Job, sampled every 50 ms

growing: the first and the same again of ten times the bytes; only if it is asked for, as it takes half an hour.

reading: records of words (about 2 KB each, drawn from a seed) in several formats, each read with
`moe_trainer.sources.documents` in a process of its own, documents taken and dropped one at a time: no filter, no
signature, no snapshot. For each format:

    file      bytes on disk                    text     UTF-8 bytes of the documents
    seconds   wall clock, and CPU time         MB/s     text per wall clock second
    peak      largest resident memory of the process, with Python and what it imports; 16 MB files beside it
              show what does not grow with the file

Compressed and columnar formats are read at a tenth of the size. Writes benchmarks/results/snapshot.json.
"""

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet
from recording import machine, write_result
from snapshot_job import make

SMALL = 16_000_000
RESULT = Path(__file__).parent / "results" / "snapshot.json"
#: Format to the share of --bytes that its file gets.
FORMATS = {"jsonl": 1.0, "txt": 1.0, "messages": 0.1, "jsonl.gz": 0.1, "jsonl.zst": 0.1, "parquet": 0.1}


def main() -> None:
    """Measure and write the result; what is not measured again keeps its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bytes", type=int, default=1_000_000_000, help="of text in the largest files")
    parser.add_argument("--only", choices=("making", "growing", "reading"), help="measure one part")
    parser.add_argument("--folder", type=Path, help="disk to work on: five times --bytes; default: temporary")
    parser.add_argument("--read", nargs=2, metavar=("FOLDER", "FORMAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(Path(arguments.read[0]), arguments.read[1])))
        return
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result["machine"] = machine()
    for part, measure in (("making", making), ("growing", growing), ("reading", reading)):
        if arguments.only == part or (arguments.only is None and part != "growing"):
            load = round(os.getloadavg()[0], 2)
            result[part] = {"loadBefore": load} | measure(arguments.bytes, arguments.folder)
            write_result("snapshot", result)


def growing(size: int, disk: Path | None) -> dict[str, Any]:
    """Measure the Job at ten times the size."""
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        return make(Path(folder), 10 * size, more=False)


def making(size: int, disk: Path | None) -> dict[str, Any]:
    """Measure the whole Job, small and large."""
    measured = {}
    for label, some in (("small", SMALL), ("large", size)):
        with tempfile.TemporaryDirectory(dir=disk) as folder:
            measured[label] = make(Path(folder), some)
        print(f"{label:6} {measured[label]}", flush=True)
    return measured


def reading(size: int, disk: Path | None) -> dict[str, Any]:
    """Measure the reading of each format, small and large."""
    measured: dict[str, Any] = {}
    for name, share in FORMATS.items():
        for label, some in (("small", SMALL), ("large", max(SMALL, int(size * share)))):
            with tempfile.TemporaryDirectory(dir=disk) as folder:
                write(Path(folder), name, some)
                figures = in_a_process(folder, name)
            measured.setdefault(name, {})[label] = figures
            print(f"{name:10} {label:6} {figures}", flush=True)
    return measured


def in_a_process(folder: str, name: str) -> dict[str, Any]:
    """Read in a process of its own, so that its peak of memory is that of reading."""
    command = [sys.executable, __file__, "--read", folder, name]
    measured: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return measured


def read(folder: Path, name: str) -> dict[str, Any]:
    """Read every document of the one file and return what it took."""
    from moe_formats.job_config import Source
    from moe_trainer.sources.documents import SourceCount, read_source
    from moe_trainer.sources.files import LocalFiles

    source = Source(root="data", path="*", format="messages" if name == "messages" else "text")
    count, size, began = SourceCount(source), 0, time.perf_counter()
    for document in read_source(LocalFiles("data", folder), count):
        size += len(document.text.encode())
    seconds = time.perf_counter() - began
    count.check()
    used = resource.getrusage(resource.RUSAGE_SELF)
    (file,) = folder.iterdir()
    return {
        "fileBytes": file.stat().st_size,
        "textBytes": size,
        "documents": count.documents,
        "seconds": round(seconds, 2),
        "cpuSeconds": round(used.ru_utime + used.ru_stime, 2),
        "megabytesPerSecond": round(size / seconds / 1e6, 1),
        "peakMegabytes": round(peak_bytes() / 1e6, 1),
    }


def peak_bytes() -> int:
    """Return the peak of resident memory since this program began (ru_maxrss would count its parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def write(folder: Path, name: str, size: int) -> None:
    """Write one file of about so many bytes of text."""
    path = folder / ("a.jsonl" if name == "messages" else f"a.{name}")
    if name == "parquet":
        # One row group: what is in memory must not depend on how a file is cut into them.
        parquet.write_table(pyarrow.table({"text": list(texts(size))}), path, row_group_size=2**30)
        return
    with _opened(path) as file:
        for text in texts(size):
            file.write(_line(name, text))


def texts(size: int) -> Iterator[str]:
    """Yield documents of about 2 KB until they are `size` bytes."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyzé", k=draw.randint(2, 12))) for _ in range(5000)]
    while size > 0:
        text = " ".join(draw.choices(words, k=260))
        size -= len(text.encode())
        yield text


def _line(name: str, text: str) -> bytes:
    if name == "txt":
        return text.encode() + b"\n\n"
    value: dict[str, Any] = {"text": text}
    if name == "messages":
        half = len(text) // 2
        roles = {"user": text[:half], "assistant": text[half:]}
        value = {"messages": [{"role": role, "content": words} for role, words in roles.items()]}
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _opened(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "wb", compresslevel=6)
    if path.suffix == ".zst":
        return pyarrow.CompressedOutputStream(str(path), "zstd")
    return path.open("wb")


if __name__ == "__main__":
    main()
