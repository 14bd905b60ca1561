"""What a router did with a batch. The layer computes with it; losses and load metrics are made of it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """The choice of a batch's tokens, and the sums that balancing needs.

    The layer never counts in place: counts leave the forward pass as an output, so a forward that is run
    again (activation recomputation) counts nothing twice. Nothing here waits for a device: what a host
    wants to know it reads when it synchronises anyway.
    """

    experts_NK: Tensor  #: The in-layer experts of each token, int64; E stands for a slot that was dropped.
    weights_NK: Tensor  #: Their weights in the token's output, at least fp32; carries gradient.
    counts_GE: Tensor  #: Slots that asked for each in-layer expert (before any was dropped), int64.
    probabilities_GE: Tensor  #: Mean router probability of each in-layer expert; carries gradient.
    logsumexp_N: Tensor  #: Log-sum-exp of each token's logits; carries gradient.
    dropped: Tensor  #: Slots that were dropped because their in-layer expert was full: one int64.
    logit_rms: Tensor  #: Root mean square of all logits: one number, without gradient.

    @property
    def experts(self) -> int:
        """In-layer experts of the layer, E."""
        return self.counts_GE.shape[1]

    @property
    def finite(self) -> Tensor:
        """Whether every logit was a finite number: one bool, on the routing's device.

        On the CPU the router has raised already where this would be false (router.py).
        """
        return self.logit_rms.isfinite()
