"""The load of a model's routers in Prometheus' text format, of the newest step."""

from collections.abc import Callable, Iterable, Sequence

from moe_trainer.moe.balance import LayerLoad

#: Most series of single in-layer experts; a model with more of them shows its layers alone.
MAX_EXPERT_SERIES = 8192

#: Name, what it says, and the figure of a layer.
_OF_A_LAYER: tuple[tuple[str, str, Callable[[LayerLoad], float]], ...] = (
    ("router_max_violation", "How far the busiest in-layer expert is above its fair share.", lambda load: load.max_violation),
    ("router_entropy", "Entropy of the load over its largest value; 1 is balance.", lambda load: load.entropy),
    ("router_dead_experts", "In-layer experts without a slot.", lambda load: load.dead),
    ("router_drop_rate", "Share of slots that were dropped.", lambda load: load.drop_rate),
    ("router_logit_rms", "Root mean square of the router's logits.", lambda load: load.logit_rms),
)  # fmt: skip


def load_metrics(loads: Sequence[LayerLoad]) -> str:
    """Return the metrics of a step, one load a layer: labelled by layer, and shares by in-layer expert too."""
    lines: list[str] = []
    for name, description, figure in _OF_A_LAYER:
        series = ((f'layer="{layer}"', figure(load)) for layer, load in enumerate(loads))
        lines += _gauge(name, description, series)
    if sum(len(load.counts) for load in loads) <= MAX_EXPERT_SERIES:
        shares = (
            (f'layer="{layer}",expert="{expert}"', share)
            for layer, load in enumerate(loads)
            for expert, share in enumerate(load.shares)
        )
        lines += _gauge("router_load", "Share of a layer's slots that asked for an in-layer expert.", shares)
    return "".join(f"{line}\n" for line in lines)


def _gauge(name: str, description: str, series: Iterable[tuple[str, float]]) -> list[str]:
    metric = f"moe_trainer_{name}"
    lines = [f"{metric}{{{labels}}} {value:.6g}" for labels, value in series]
    return [f"# HELP {metric} {description}", f"# TYPE {metric} gauge", *lines] if lines else []
