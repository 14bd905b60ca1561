"""A result as a table, losses as plainly as wins."""

from collections.abc import Iterator
from typing import Any

COLUMNS = (
    "layer",
    "forward ms",
    "backward ms",
    "total ms (p20–p80)",
    "TFLOP/s",
    "graph ms",
    "kept MB",
    "error y / worst",
)


def table(result: dict[str, Any]) -> str:
    """Return a whole result as text."""
    parts = [_case(name, found) for name, found in result["cases"].items()]
    parts += [f"{name}: not measured: {why}" for name, why in result["notMeasured"].items()]
    return "\n\n".join(parts)


def _case(name: str, found: dict[str, Any]) -> str:
    rows = [COLUMNS, *(_row(layer, values) for layer, values in found["layers"].items() if "ms" in values)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([f"{name}  (largest load / mean {found['maxLoadOverMean']})", *lines, *_notes(found)])


def _row(layer: str, values: dict[str, Any]) -> tuple[str, ...]:
    ms = values["ms"]
    total = ms.get("total", ms["forward"])
    graph = values.get("graph", {}).get("ms")
    errors = values["errors"]
    return (
        layer,
        f"{ms['forward']['median']:.3g}",
        f"{ms['backward']['median']:.3g}" if "backward" in ms else "",
        f"{total['median']:.3g} ({total['p20']:.3g}–{total['p80']:.3g})",
        f"{values['tflops'].get('total', values['tflops']['forward']):.3g}",
        f"{graph['total']['median']:.3g}" if graph else "",
        f"{values['keptBytes'] / 1e6:.4g} ({values['keptOverFormula']:.2f}×)"
        if "keptBytes" in values
        else "",
        f"{errors['y']:.1e} / {max(errors.values()):.1e}",
    )


def _notes(found: dict[str, Any]) -> Iterator[str]:
    plain = found["plainProduct"]
    yield f"plain product {plain['size']}³: {plain['tflops']} TFLOP/s"
    if "productsAloneMs" in found:
        yield f"its products alone: {found['productsAloneMs']['median']:.3g} ms"
    if "weightReadFloorMs" in found:
        yield f"reading the weights in use: {found['weightReadFloorMs']} ms at {found['readTBPerSecond']} TB/s"
    for layer, values in found["layers"].items():
        for key in ("absent", "failed"):
            if key in values:
                yield f"{layer}: {key}: {values[key]}"
        if "absent" in values.get("graph", {}):
            yield f"{layer}: no graph: {values['graph']['absent']}"
        if "overItsProducts" in values:
            yield f"{layer}: {values['overItsProducts']['median']:.2f} × its products alone"
    for ours, others in found["speedups"].items():
        told = ", ".join(f"{ratio['median']:.2f} × {other}" for other, ratio in others.items())
        yield f"{ours} is faster by: {told}" if told else f"{ours}: nothing to compare with"
