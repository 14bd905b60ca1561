"""OpenAI's answers, whole and streamed in pieces, made from a sequence's events."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from moe_trainer.server.engine import Event, Finished, Generated, PromptScored
from moe_trainer.server.sampling import TokenLogprob
from moe_trainer.server.text import TextStream
from moe_trainer.text.tokenizer import Tokenizer

Json = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """What one event adds to a choice: text, the tokens it is made of, and why the choice ends.

    `tokens` is empty if no log-probabilities were asked for. `offset` is the number of characters of the choice before
    this piece.
    """

    text: str
    offset: int
    tokens: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None


@dataclass
class Choice:
    """One answer to one prompt, as it grows."""

    index: int
    prompt: Sequence[int]
    tokenizer: Tokenizer
    stream: TextStream
    echo: bool = False
    completion_tokens: int = 0
    prompt_tokens: tuple[TokenLogprob, ...] = ()
    ended: bool = False
    _unsent: list[TokenLogprob] = field(default_factory=list)
    _characters: int = 0

    def take(self, event: Event) -> Piece:
        """Return what an event adds to the choice. Sets `ended` with the last piece, also after a stop string."""
        match event:
            case PromptScored():
                first = self.prompt[: len(self.prompt) - len(event.tokens)]
                self.prompt_tokens = (*map(TokenLogprob, first), *event.tokens)
                if not self.echo:
                    return self._piece("")
                return self._piece(self.tokenizer.decode(self.prompt), self.prompt_tokens)
            case Finished():
                self.ended = True
                return self._piece(self.stream.end(), self._take_unsent(), event.reason)
            case Generated():
                return self._take_token(event)

    def _take_token(self, event: Generated) -> Piece:
        self.completion_tokens += 1
        if event.scored is not None:
            self._unsent.append(event.scored)
        text = self.stream.push(b"" if event.ends else self.tokenizer.decode_bytes([event.token]))
        if self.stream.stopped:
            self.ended = True
            return self._piece(text, self._take_unsent(), "stop")
        return self._piece(text, self._take_unsent() if text else ())

    def _piece(
        self, text: str, tokens: tuple[TokenLogprob, ...] = (), finish_reason: str | None = None
    ) -> Piece:
        piece = Piece(text, self._characters, tokens, finish_reason)
        self._characters += len(text)
        return piece

    def _take_unsent(self) -> tuple[TokenLogprob, ...]:
        unsent, self._unsent = tuple(self._unsent), []
        return unsent

    def joined(self, pieces: Sequence[Piece]) -> Piece:
        """Return all pieces of this choice as one."""
        return Piece(
            text="".join(piece.text for piece in pieces),
            offset=0,
            tokens=tuple(token for piece in pieces for token in piece.tokens),
            finish_reason=pieces[-1].finish_reason,
        )


class Shape(Protocol):
    """The format of one endpoint's answers."""

    whole_kind: ClassVar[str]
    piece_kind: ClassVar[str]

    def whole(self, choice: Choice, piece: Piece) -> Json:
        """Return a finished choice."""

    def piece(self, choice: Choice, piece: Piece) -> Json:
        """Return a piece of a choice that is being streamed."""


@dataclass(frozen=True)
class CompletionShape:
    """The answers of /v1/completions."""

    tokenizer: Tokenizer
    logprobs: int | None
    prompt_logprobs: int | None
    whole_kind: ClassVar[str] = "text_completion"
    piece_kind: ClassVar[str] = "text_completion"

    def whole(self, choice: Choice, piece: Piece) -> Json:
        """Return a finished choice."""
        answer = self.piece(choice, piece)
        if self.prompt_logprobs is not None:
            answer["prompt_logprobs"] = prompt_logprobs(
                choice.prompt_tokens, self.prompt_logprobs, self.tokenizer
            )
        return answer

    def piece(self, choice: Choice, piece: Piece) -> Json:
        """Return a piece of a choice that is being streamed."""
        logprobs = None
        if self.logprobs is not None:
            logprobs = completion_logprobs(piece, self.logprobs, self.tokenizer)
        return {
            "index": choice.index,
            "text": piece.text,
            "logprobs": logprobs,
            "finish_reason": piece.finish_reason,
        }


@dataclass(frozen=True)
class ChatShape:
    """The answers of /v1/chat/completions."""

    tokenizer: Tokenizer
    logprobs: int | None
    whole_kind: ClassVar[str] = "chat.completion"
    piece_kind: ClassVar[str] = "chat.completion.chunk"

    def whole(self, choice: Choice, piece: Piece) -> Json:
        """Return a finished choice."""
        message = {"role": "assistant", "content": piece.text}
        return self._choice(choice, piece) | {"message": message}

    def piece(self, choice: Choice, piece: Piece) -> Json:
        """Return a piece of a choice that is being streamed."""
        delta = {"content": piece.text}
        if piece.offset == 0:  # A piece is sent only with text or as the last, so this is the first one.
            delta["role"] = "assistant"
        return self._choice(choice, piece) | {"delta": delta}

    def _choice(self, choice: Choice, piece: Piece) -> Json:
        logprobs = chat_logprobs(piece.tokens, self.tokenizer) if self.logprobs is not None else None
        return {"index": choice.index, "logprobs": logprobs, "finish_reason": piece.finish_reason}


def token_text(token: int, tokenizer: Tokenizer) -> str:
    """Return a token as text; bytes that are not a whole character are written in hexadecimal, as OpenAI does.

    Special tokens are written by their names: without bytes, they would all be the same empty text.
    """
    data = tokenizer.decode_bytes([token])
    if not data:
        return tokenizer.name(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def completion_logprobs(piece: Piece, top: int, tokenizer: Tokenizer) -> Json:
    """Return the `logprobs` of a completion; offsets are counted in characters from the beginning of the choice."""
    offsets, seen = [], b""
    for token in piece.tokens:
        offsets.append(piece.offset + len(seen.decode(errors="ignore")))
        seen += tokenizer.decode_bytes([token.token])
    return {
        "tokens": [token_text(token.token, tokenizer) for token in piece.tokens],
        "token_logprobs": [token.logprob for token in piece.tokens],
        "top_logprobs": [_top_logprobs(token, top, tokenizer) for token in piece.tokens],
        "text_offset": offsets,
    }


def _top_logprobs(token: TokenLogprob, top: int, tokenizer: Tokenizer) -> dict[str, float] | None:
    """Return the log-probabilities of the most probable tokens and of the token itself, by their text.

    The token itself may be one more than ``top``, as in OpenAI's answers. Where two have the same text, the better counts.
    """
    if token.logprob is None:
        return None
    found: dict[str, float] = {}
    for t, lp in token.top[:top]:
        found.setdefault(token_text(t, tokenizer), lp)
    found.setdefault(token_text(token.token, tokenizer), token.logprob)
    return found


def chat_logprobs(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> Json:
    """Return the `logprobs` of a chat choice."""

    def entry(token: int, logprob: float | None) -> Json:
        data = tokenizer.decode_bytes([token])
        return {"token": token_text(token, tokenizer), "logprob": logprob, "bytes": list(data) or None}

    content = [
        entry(token.token, token.logprob) | {"top_logprobs": [entry(t, lp) for t, lp in token.top]}
        for token in tokens
    ]
    return {"content": content}


def prompt_logprobs(tokens: Sequence[TokenLogprob], top: int, tokenizer: Tokenizer) -> list[Json | None]:
    """Return the log-probabilities of a prompt in vLLM's format: for each position, entries by token id."""
    entries: list[Json | None] = []
    for token in tokens:
        if token.logprob is None:
            entries.append(None)
            continue
        best = {
            str(t): {"logprob": lp, "rank": rank, "decoded_token": token_text(t, tokenizer)}
            for rank, (t, lp) in enumerate(token.top[:top], start=1)
        }
        own = {
            "logprob": token.logprob,
            "rank": token.rank,
            "decoded_token": token_text(token.token, tokenizer),
        }
        entries.append(best | {str(token.token): own})
    return entries


def usage(choices: Sequence[Choice]) -> Json:
    """Return the token counts."""
    asked = sum(len(choice.prompt) for choice in choices)
    made = sum(choice.completion_tokens for choice in choices)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


def envelope(kind: str, model: str) -> Json:
    """Return the fields with which every answer, and every piece of one, begins."""
    prefix = "cmpl" if kind == CompletionShape.whole_kind else "chatcmpl"
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def server_sent(value: Json) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


#: The last event of a stream.
DONE = b"data: [DONE]\n\n"
