"""The files of a tokenizer, read and checked before a library makes anything of them. Imports no library.

What is checked here is what a description can say about itself: sizes, ids, lengths, how much its replacements lengthen a
text. What only shows when it runs is found by trying it out (tokenizer_process.py).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moe_formats.failure import JobError
from moe_trainer import limits, untrusted

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"

#: The tokenizer, and every other file that Hugging Face's libraries may need with it, with the most bytes of each.
FILES = {
    TOKENIZER: limits.TOKENIZER_BYTES,
    CONFIG: limits.CONFIG_BYTES,
    TEMPLATE: limits.TEMPLATE_BYTES,
    "special_tokens_map.json": limits.CONFIG_BYTES,
    "added_tokens.json": limits.CONFIG_BYTES,
    "vocab.json": limits.TOKENIZER_BYTES,
    "merges.txt": limits.TOKENIZER_BYTES,
    "tokenizer.model": limits.TOKENIZER_BYTES,
}


def read(folder: Path) -> dict[str, bytes]:
    """Return the files of a tokenizer by name; raises JobError (TokenizerUnsupported)."""
    files = {}
    for name, most in FILES.items():
        if (folder / name).is_file():
            try:
                files[name] = untrusted.read(folder / name, most)
            except untrusted.LimitExceeded as error:
                raise unsupported(f"{name}: {error}") from None
    if TOKENIZER not in files:
        raise unsupported(
            f"{folder.name} has no {TOKENIZER}. Save it again with one of transformers' fast tokenizers"
        )
    return files


def json_object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Return the JSON object in a file, empty if there is no such file; raises JobError (TokenizerUnsupported)."""
    try:
        found = untrusted.parse(files.get(name, b"{}"))
    except ValueError as error:
        raise unsupported(f"{name}: {error}") from None
    if not isinstance(found, dict):
        raise unsupported(f"{name} is not a JSON object")
    return found


def check(description: Mapping[str, Any]) -> None:
    """Check a ``tokenizer.json``; raises JobError (TokenizerUnsupported), which names the field, its value and the limit."""
    model = description.get("model")
    if isinstance(model, dict):
        _check_vocabulary(model.get("vocab"))
        if model.get("dropout"):
            raise _wrong(
                f"model.dropout is {model['dropout']!r}, so a text would have other ids each time: set it to null"
            )
    added = description.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > limits.ADDED_TOKENS:
        raise _wrong(f"added_tokens is not a list of at most {limits.ADDED_TOKENS:,} tokens")
    for token in added:
        if isinstance(token, dict):
            _check_token(token.get("content"), "added_tokens")
            _check_id(token.get("id"), "added_tokens")
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        _check_steps(part, list(steps(description.get(part))))


def steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a normalizer, a pre-tokenizer or a decoder, those in sequences too."""
    if isinstance(part, dict):
        yield part
        for inner in ("normalizers", "pretokenizers", "decoders"):
            several = part.get(inner)
            for step in several if isinstance(several, list) else ():
                yield from steps(step)


def patterns(description: Mapping[str, Any]) -> list[str]:
    """Return texts that the steps of a tokenizer look for, as far as they say so."""
    found = []
    for part in ("normalizer", "pre_tokenizer"):
        for step in steps(description.get(part)):
            pattern = step.get("pattern")
            texts = pattern.values() if isinstance(pattern, dict) else [pattern]
            found += [text for text in texts if isinstance(text, str) and 0 < len(text) <= 64]
    return found


def unsupported(what: str) -> JobError:
    """Return the error for a tokenizer that cannot be used."""
    return JobError("TokenizerUnsupported", f"{what}.")


def _check_vocabulary(vocabulary: Any) -> None:
    """Check a vocabulary: ids by token, or tokens in the order of their ids with a score each."""
    if isinstance(vocabulary, dict):
        tokens, ids = list(vocabulary), list(vocabulary.values())
    elif isinstance(vocabulary, list):
        tokens = [entry[0] if isinstance(entry, list) and entry else None for entry in vocabulary]
        ids = list(range(len(tokens)))
    else:
        raise _wrong("model.vocab is neither an object nor a list")
    if len(tokens) > limits.VOCABULARY:
        raise _wrong(f"model.vocab has {len(tokens):,} tokens; the limit is {limits.VOCABULARY:,}")
    for token in tokens:
        _check_token(token, "model.vocab")
    for number in ids:
        _check_id(number, "model.vocab")
    if len(set(ids)) < len(ids):
        raise _wrong("model.vocab gives the same id to several tokens")


def _check_token(token: Any, where: str) -> None:
    if not isinstance(token, str):
        raise _wrong(f"{where} holds {token!r:.60}, which is not a token")
    if len(token) > limits.TOKEN_CHARACTERS:
        raise _wrong(
            f"{where} holds the token {token[:20]!r}… of {len(token):,} characters; the limit is "
            f"{limits.TOKEN_CHARACTERS:,}"
        )


def _check_id(number: Any, where: str) -> None:
    if type(number) is not int or not 0 <= number < limits.VOCABULARY:
        raise _wrong(
            f"{where} holds the id {number!r:.40}: ids are numbers from 0 to {limits.VOCABULARY - 1:,}"
        )


def _check_steps(part: str, found: list[Mapping[str, Any]]) -> None:
    """Check how many steps a part has, and by how much they lengthen a text in the worst case."""
    if len(found) > limits.TOKENIZER_STEPS:
        raise _wrong(f"{part} has {len(found):,} steps; the limit is {limits.TOKENIZER_STEPS}")
    growth = 1.0
    for step in found:
        growth *= max(1.0, _growth(step))
    if growth > limits.TOKENIZER_GROWTH:
        raise _wrong(
            f"the replacements in {part} can make a text {growth:,.0f} times as long; the limit is "
            f"{limits.TOKENIZER_GROWTH}"
        )


def _growth(step: Mapping[str, Any]) -> float:
    """Return by how much a step lengthens what it replaces, at most."""
    content = step.get("content")
    if step.get("type") != "Replace" or not isinstance(content, str):
        return 1.0
    pattern = step.get("pattern")
    text = pattern.get("String") if isinstance(pattern, dict) else pattern
    return len(content) / len(text) if isinstance(text, str) and text else 1.0 + len(content)


def _wrong(what: str) -> JobError:
    return unsupported(f"{TOKENIZER}: {what}")
