"""Decodes many sequences at once on one worker thread: continuous batching over rows of a KV cache.

In every turn the worker admits at most one waiting sequence (its prompt runs through the model and fills a row of the
cache), and then generates one token for every running sequence in one forward pass. So a long prompt delays the others
by at most one pass, and a finished sequence makes room immediately. A prompt that is only scored needs no row, so
routing by likelihood works even while all rows are busy.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.device import follow
from moe_trainer.server.sampling import Sampling, TokenLogprob, choose, score

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """What to do with one prompt.

    If `prompt_logprobs` is set, the log-probabilities of all tokens of `prompt` but the first, which nothing precedes, are
    reported with that many alternatives. With `max_tokens` 0 the prompt is only scored.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    bank: int | None = None  #: The bank that answers, if the model holds the banks of several Experts.


@dataclass(frozen=True)
class PromptScored:
    """The prompt's tokens after the first, with their log-probabilities."""

    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Generated:
    """One more token, with its log-probability if that was asked for.

    The token with which the model ends its answer is one of them: it counts, but it adds no text.
    """

    token: int
    scored: TokenLogprob | None
    ends: bool = False


@dataclass(frozen=True)
class Finished:
    """The last event of a sequence. `stop`: the model ended it; `length`: max_tokens was reached."""

    reason: Literal["stop", "length", "error"]


Event = PromptScored | Generated | Finished


class QueueFull(Exception):
    """The queue of waiting requests is full."""


@dataclass(eq=False)
class _Sequence:
    """A generation in progress."""

    generation: Generation
    emit: Callable[[Event], None]
    generator: torch.Generator
    row: int = -1
    next_token: int = -1
    generated: int = 0
    cancelled: bool = False


class Ticket:
    """The sequences of one request, and their events."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        """Make a ticket that belongs to the running event loop."""
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        def emitter(index: int) -> Callable[[Event], None]:
            return lambda event: _call(loop, self._events.put_nowait, (index, event))

        self.sequences = [
            _Sequence(generation, emitter(index), generation.sampling.generator())
            for index, generation in enumerate(generations)
        ]

    async def next(self) -> tuple[int, Event]:
        """Return the next event and the index of the generation it belongs to."""
        return await self._events.get()

    def cancel(self, index: int | None = None) -> None:
        """Stop one generation, or all of them."""
        for sequence in self.sequences if index is None else [self.sequences[index]]:
            sequence.cancelled = True


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], argument: object) -> None:
    """Call a function on the loop; if the loop is closed, nobody is waiting any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, argument)


@dataclass
class Load:
    """The worker's current load, for metrics and probes."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    alive: bool = True


@dataclass
class _Queue:
    """What the event loop passes to the worker."""

    waiting: deque[_Sequence] = field(default_factory=deque)
    changed: threading.Condition = field(default_factory=threading.Condition)
    stopping: bool = False


class Engine:
    """One model, one worker thread, `max_batch` rows."""

    def __init__(
        self,
        model: CausalModel,
        *,
        max_context: int,
        max_batch: int,
        max_queue: int,
        choose_banks: Callable[[Sequence[int | None]], None] | None = None,
    ) -> None:
        """Prepare the worker; start() starts it. `max_context` counts the token that begins a document.

        `choose_banks` is told, before each forward pass, the bank of each of its sequences.
        """
        self._model = model
        self._choose_banks = choose_banks
        self._max_queue = max_queue
        self._queue = _Queue()
        self._running: list[_Sequence] = []
        self._free_rows = list(range(max_batch))
        self._cache = model.new_cache(max_batch, max_context)
        self._ends = model.end_ids
        self._never = torch.tensor(sorted(model.never_ids - model.end_ids), dtype=torch.long)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker after its current pass; running sequences get no more events."""
        with self._queue.changed:
            self._queue.stopping = True
            self._queue.changed.notify()
        self._thread.join()

    def load(self) -> Load:
        """Return the current load."""
        used = int(self._cache.lengths_R.sum())
        capacity = self._cache.lengths_R.shape[0] * self._cache.max_length
        return Load(len(self._running), len(self._queue.waiting), used / capacity, self._thread.is_alive())

    def submit(self, generations: Sequence[Generation]) -> "Ticket":
        """Queue the generations of one request and return their ticket. Raises QueueFull."""
        ticket = Ticket(generations)
        with self._queue.changed:
            room = self._max_queue + len(self._free_rows) - len(self._queue.waiting)
            if len(generations) > room:
                raise QueueFull
            self._queue.waiting.extend(ticket.sequences)
            self._queue.changed.notify()
        return ticket

    def _work(self) -> None:
        follow(self._model)
        with torch.inference_mode():
            while self._wait_for_work():
                try:
                    self._admit()
                    self._step()
                except Exception:
                    log.exception("a forward pass failed; its sequences end with an error")
                    for sequence in list(self._running):
                        self._finish(sequence, "error")

    def _wait_for_work(self) -> bool:
        with self._queue.changed:
            self._queue.changed.wait_for(lambda: self._queue.stopping or self._queue.waiting or self._running)
            return not self._queue.stopping

    def _admit(self) -> None:
        """Admit one waiting sequence: the first that needs no row, or for which a row is free."""
        sequence = self._next_waiting()
        if sequence is None:
            return
        self._running.append(sequence)
        generation, prompt_1T = sequence.generation, torch.tensor([sequence.generation.prompt])
        self._choose([sequence])
        if generation.max_tokens:
            sequence.row = self._free_rows.pop()
            logits_TV = self._model(prompt_1T, self._cache, torch.tensor([sequence.row]))[0]
        else:
            logits_TV = self._model(prompt_1T)[0]
        if generation.prompt_logprobs is not None:
            scored = score(logits_TV[:-1], generation.prompt[1:], generation.prompt_logprobs)
            sequence.emit(PromptScored(tuple(scored)))
        if generation.max_tokens:
            self._take_token(sequence, logits_TV[-1])
        else:
            self._finish(sequence, "length")

    def _next_waiting(self) -> _Sequence | None:
        with self._queue.changed:
            waiting = [sequence for sequence in self._queue.waiting if not sequence.cancelled]
            admissible = (s for s in waiting if self._free_rows or not s.generation.max_tokens)
            chosen = next(admissible, None)
            self._queue.waiting = deque(sequence for sequence in waiting if sequence is not chosen)
            return chosen

    def _step(self) -> None:
        """Generate the next token of every running sequence."""
        for sequence in [sequence for sequence in self._running if sequence.cancelled]:
            self._finish(sequence, "stop")
        if not self._running:
            return
        batch = list(self._running)
        tokens_B1 = torch.tensor([[sequence.next_token] for sequence in batch])
        rows_B = torch.tensor([sequence.row for sequence in batch])
        self._choose(batch)
        logits_BV = self._model(tokens_B1, self._cache, rows_B)[:, -1]
        for sequence, logits_V in zip(batch, logits_BV, strict=True):
            self._take_token(sequence, logits_V)

    def _choose(self, batch: Sequence[_Sequence]) -> None:
        if self._choose_banks is not None:
            self._choose_banks([sequence.generation.bank for sequence in batch])

    def _take_token(self, sequence: _Sequence, logits_V: Tensor) -> None:
        """Choose a sequence's next token, report it, and finish the sequence if the token ends it."""
        generation = sequence.generation
        allowed_V = logits_V.index_fill(0, self._never, -torch.inf)
        token = choose(allowed_V, generation.sampling, sequence.generator)
        ends = token in self._ends
        sequence.next_token = token
        sequence.generated += 1
        top = generation.logprobs
        scored = None if top is None else score(logits_V[None], [token], top)[0]
        sequence.emit(Generated(token, scored, ends))
        if ends:
            self._finish(sequence, "stop")
        elif sequence.generated >= generation.max_tokens:
            self._finish(sequence, "length")

    def _finish(self, sequence: _Sequence, reason: Literal["stop", "length", "error"]) -> None:
        self._running.remove(sequence)
        if sequence.row >= 0:
            self._cache.lengths_R[sequence.row] = 0
            self._free_rows.append(sequence.row)
        sequence.emit(Finished(reason))
