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
    "of plain",
    "kept MB",
    "peak MB",
    "error y / worst",
)


def table(result: dict[str, Any]) -> str:
    """Return a whole result as text."""
    parts = [_case(name, found) for name, found in result["cases"].items()]
    parts += [f"{name}: not measured: {why}" for name, why in result["notMeasured"].items()]
    return "\n\n".join(parts)


def _case(name: str, found: dict[str, Any]) -> str:
    rows = [
        COLUMNS,
        *(_row(layer, values) for layer, values in found["layers"].items() if "errors" in values),
    ]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in zip(*columns, strict=True)
    ]
    return "\n".join([f"{name}  (largest load / mean {found['maxLoadOverMean']})", *lines, *_notes(found)])


def _row(layer: str, values: dict[str, Any]) -> tuple[str, ...]:
    errors = values["errors"]
    kept = (
        f"{values['keptBytes'] / 1e6:.4g} ({values['keptOverFormula']:.2f}×)" if "keptBytes" in values else ""
    )
    peak = f"{values['peakBytes'] / 1e6:.4g}" if "peakBytes" in values else ""
    return (layer, *_times(values), kept, peak, f"{errors['y']:.1e} / {max(errors.values()):.1e}")


def _times(values: dict[str, Any]) -> tuple[str, ...]:
    if "ms" not in values:
        return ("",) * 6
    ms = values["ms"]
    total = ms.get("total", ms["forward"])
    graph = values.get("graph", {}).get("ms")
    return (
        f"{ms['forward']['median']:.3g}",
        f"{ms['backward']['median']:.3g}" if "backward" in ms else "",
        f"{total['median']:.3g} ({total['p20']:.3g}–{total['p80']:.3g})",
        f"{values['tflops'].get('total', values['tflops']['forward']):.3g}",
        f"{graph['total']['median']:.3g}" if graph else "",
        f"{values['shareOfPlainProduct']:.0%}",
    )


def _notes(found: dict[str, Any]) -> Iterator[str]:
    if "plainProduct" in found:
        yield "plain product {size}³: {tflops} TFLOP/s".format_map(found["plainProduct"])
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
        if "overReadFloor" in values:
            yield f"{layer}: {values['overReadFloor']:.2f} × reading the weights in use"
        if "overItsProducts" in values:
            ratio = values["overItsProducts"]
            yield f"{layer}: {ratio['median']:.2f} × its products alone ({ratio['p20']:.2f}–{ratio['p80']:.2f})"
    for ours, others in found.get("speedups", {}).items():
        for other, ratio in others.items():
            yield f"{ours}: {ratio['median']:.2f} × as fast as {other} ({ratio['p20']:.2f}–{ratio['p80']:.2f})"
