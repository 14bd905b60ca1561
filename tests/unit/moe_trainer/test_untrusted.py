import asyncio
from pathlib import Path

import pytest

from moe_formats.failure import JobError
from moe_trainer import limits
from moe_trainer.untrusted import LimitExceeded, failing_as, is_panic, parse, read


def test_no_more_of_a_file_is_read_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read(tmp_path / "a", 5) == b"12345"
    with pytest.raises(LimitExceeded, match="more than 4 bytes"):
        read(tmp_path / "a", 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[NaN]", "NaN is not a finite number"),
        (b"[-Infinity]", "-Infinity is not a finite number"),
        (b"[1e400]", "1e400 is not a finite number"),
        (
            b"[" + b"9" * 5000 + b"]",
            "it has a whole number of more than 4,300 digits, which is the limit: write it as text",
        ),
        (b"[" * 65 + b"]" * 65, "the limit is 64 levels"),
        (b"[" * 1_000_000, "the limit is 64 levels"),
        (b"[" + b"[]," * limits.JSON_VALUES + b"1]", r"it holds 8,000,\d+ values; the limit is 4,000,000"),
    ],
)
def test_a_text_that_is_no_json_or_too_much_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_json_within_the_limits_is_parsed() -> None:
    assert parse(b'{"a": [1, 2.5, null, "b,[{"]}') == {"a": [1, 2.5, None, "b,[{"]}
    assert parse(b"[" * 64 + b"]" * 64) is not None


class PanicException(BaseException):
    """As PyO3 raises it."""


def unsupported(what: str) -> JobError:
    return JobError("TokenizerUnsupported", what)


@pytest.mark.parametrize("error", [PanicException("odd"), ValueError("odd"), RecursionError("odd")])
def test_whatever_a_library_raises_is_an_error_of_the_input(error: BaseException) -> None:
    with pytest.raises(JobError, match=f"{type(error).__name__}: odd"), failing_as(unsupported):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(1),
        asyncio.CancelledError(),
        GeneratorExit(),
        MemoryError(),
        JobError("A", "b"),
    ],
)
def test_what_is_not_the_inputs_fault_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as found, failing_as(unsupported):
        raise error
    assert found.value is error


def test_a_real_panic_is_known() -> None:
    import json

    from tokenizers import Tokenizer

    strip = {"type": "Strip", "content": "a", "start": 10**9, "stop": 10**9}
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "model": model, "decoder": strip}))
    with pytest.raises(BaseException) as error:
        tokenizer.decode([0])
    assert is_panic(error.value) and not isinstance(error.value, Exception)
