"""Plans the answer to a request; all errors in the request are found before anything is queued.

A prompt can be a megabyte, and its template and tokenizer come from outside, so plans are made in threads of their own: the
event loop goes on answering probes and writing streams.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from moe_formats.failure import JobError
from moe_formats.format import Digest
from moe_trainer import limits
from moe_trainer.server.engine import Generation
from moe_trainer.server.metrics import ExpertMetrics
from moe_trainer.server.requests import BadRequest, parse_chat, parse_completion
from moe_trainer.server.responses import ChatShape, Choice, CompletionShape, Shape
from moe_trainer.server.sampling import Sampling
from moe_trainer.server.text import TextStream
from moe_trainer.text.tokenizer import PromptReader, Tokenizer


@dataclass(frozen=True)
class Served:
    """An Expert for which this server answers."""

    expert: str
    revision: str
    digest: Digest
    bank: int | None  #: The number of its bank in the composed model; None: it sees no bank.
    metrics: ExpertMetrics
    temperature: float  #: The default for requests without a temperature.


@dataclass(frozen=True)
class Plan:
    """A checked request: what to generate, the choices that are filled by it, and the format of the answer."""

    served: Served
    generations: list[Generation]
    choices: list[Choice]
    shape: Shape
    stream: bool
    usage_in_stream: bool


@dataclass(frozen=True)
class Planner:
    """Plans the answers to requests; raises BadRequest, which names the field.

    Attributes:
        served: the Experts for which the server answers, by name.
        tokenizer: the model's tokenizer.
        reader: turns the prompts of requests into its ids.
        max_context: the most tokens of a sequence, including the one that begins a document.

    """

    served: Mapping[str, Served]
    tokenizer: Tokenizer
    reader: PromptReader
    max_context: int

    def completion(self, data: bytes) -> Plan:
        """Return the plan for POST /v1/completions."""
        asked = parse_completion(data)
        served = self._served_by(asked.model)
        scored = [asked.logprobs or 0] if asked.echo else []
        scored += [asked.prompt_logprobs] if asked.prompt_logprobs is not None else []
        with _refused("prompt"):
            prompts = asked.prompts(self.reader, self.tokenizer.vocab_size)
        begin = () if asked.gives_ids else (self.tokenizer.bos_id,)
        generations = [
            self._generation(
                (*begin, *prompt),
                asked.max_tokens,
                asked.sampling(served.temperature),
                added=len(begin),
                logprobs=asked.logprobs,
                prompt_logprobs=max(scored, default=None),
                bank=served.bank,
            )
            for prompt in prompts
        ]
        shape = CompletionShape(self.tokenizer, asked.logprobs, asked.prompt_logprobs)
        choices = self._choices(prompts, asked.stops(), asked.echo)
        return Plan(served, generations, choices, shape, asked.stream, asked.usage_in_stream)

    def chat(self, data: bytes) -> Plan:
        """Return the plan for POST /v1/chat/completions."""
        asked = parse_chat(data)
        served = self._served_by(asked.model)
        with _refused("messages"):
            prompt = self.reader.prompt(asked.said())
        logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
        generation = self._generation(
            prompt,
            asked.wanted_tokens(),
            asked.sampling(served.temperature),
            added=1,
            logprobs=logprobs,
            bank=served.bank,
        )
        choices = self._choices([prompt[1:]], asked.stops(), echo=False)
        shape = ChatShape(self.tokenizer, logprobs)
        return Plan(served, [generation], choices, shape, asked.stream, asked.usage_in_stream)

    def _generation(
        self,
        prompt: Sequence[int],
        max_tokens: int | None,
        sampling: Sampling,
        *,
        added: int,
        logprobs: int | None,
        bank: int | None,
        prompt_logprobs: int | None = None,
    ) -> Generation:
        """Return the generation for a prompt if it fits the context.

        ``added`` is the number of tokens at its beginning that are not the client's, and which messages do not count.
        """
        room = self.max_context - len(prompt)
        wanted = max(room, 1) if max_tokens is None else max_tokens
        if wanted > room:
            raise BadRequest(
                # Clients recognise what is wrong by OpenAI's words.
                f"This model's maximum context length is {self.max_context - added} tokens. However, you requested "
                f"{len(prompt) - added + wanted} tokens ({len(prompt) - added} in the prompt, {wanted} in the "
                "completion). Shorten the prompt, or lower max_tokens",
                "messages" if max_tokens is None else "max_tokens",
                "context_length_exceeded",
            )
        return Generation(tuple(prompt), wanted, sampling, logprobs, prompt_logprobs, bank)

    def _choices(self, prompts: list[list[int]], stops: tuple[str, ...], echo: bool) -> list[Choice]:
        return [
            Choice(index, prompt, self.tokenizer, TextStream(stops), echo)
            for index, prompt in enumerate(prompts)
        ]

    def _served_by(self, model: str) -> Served:
        if model not in self.served:
            message = f"the model {model!r} does not exist here; available: {', '.join(self.served)}"
            raise BadRequest(message, "model", "model_not_found", status=404)
        return self.served[model]


class Planning:
    """Makes plans in threads, a few at the same time."""

    def __init__(self, reader: PromptReader) -> None:
        """Take the reader that the planner uses; it is closed with this."""
        self._reader = reader
        self._threads = ThreadPoolExecutor(limits.PROMPTS_AT_ONCE, "planning")
        self._free = asyncio.Semaphore(limits.PROMPTS_AT_ONCE)

    async def plan(self, make: Callable[[bytes], Plan], body: bytes) -> Plan:
        """Return the plan that ``make`` makes of a body; raises BadRequest, also if others keep all threads busy."""
        try:
            await asyncio.wait_for(self._free.acquire(), limits.PROMPT_SECONDS)
        except TimeoutError:
            raise BadRequest(
                f"{limits.PROMPTS_AT_ONCE} other prompts have been worked on for {limits.PROMPT_SECONDS:g} s: try again "
                "later",
                code="too_many_requests",
                status=429,
            ) from None
        made = asyncio.get_running_loop().run_in_executor(self._threads, make, body)
        made.add_done_callback(lambda _: self._free.release())  # not before, even if the client has left
        return await asyncio.shield(made)

    def close(self) -> None:
        """Give back threads and processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._reader.close()


@contextmanager
def _refused(field: str) -> Iterator[None]:
    """Turn what cannot be tokenized into an error of the request's field."""
    try:
        yield
    except JobError as error:
        if error.retryable:
            raise BadRequest(error.message, field, "internal_error", status=500) from None
        raise BadRequest(f"{field}: {error.message}", field, "prompt_refused") from None
