"""Which decoders of transformers can be used, tried on a tiny random one of each: the table in docs/models.md.

python -m tests.trainer.hugging_face.test_architectures    writes the table again

What ours computes is compared with what transformers computes by itself, one document at a time.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from moe_formats.failure import JobError
from moe_formats.training_spec import TrainingSpec
from moe_trainer.hugging_face import directory, trial
from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.methods.expert_bank import bankable
from moe_trainer.methods.lora import LoRA, _parts
from moe_trainer.parallel.layout import Layout
from moe_trainer.parallel.processes import Processes
from moe_trainer.weights import reading

from .architectures_made_here import EXPERTS, KINDS, UNTRIED, VOCABULARY, tiny

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
BEGIN, END = "<!-- architectures: made by a test -->\n", "<!-- end -->\n"

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
LENGTH, FIRST = 16, (7, 9)


class Usable(NamedTuple):
    """What can be done with an architecture, in the words of the table."""

    lora: str
    in_layer_experts: str
    apart: str


def ids() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCABULARY // 4, VOCABULARY // 2, (2, LENGTH), generator=generator)


def found(kind: str, folder: Path) -> Usable | str:
    """Return what can be done with an architecture, or why nothing; fails where ours and transformers differ."""
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(tiny(kind)).eval()
    made.save_pretrained(folder)
    refused = False
    try:
        decoder = directory.load_decoder(folder)
        trial.try_out(decoder, apart=True)
    except JobError as error:
        refused = "training.acrossDocuments" in error.message
        if not refused:
            return said(error, folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        check_logits(decoder, theirs)
        apart = documents_are_apart(decoder, theirs)
    assert refused != apart
    if theirs.all_tied_weights_keys:
        check_ties(folder, theirs)
    check_training(decoder)
    in_layer_experts = experts_in_words(decoder)
    return Usable(updated(decoder), in_layer_experts, "yes" if apart else "refused")


def said(error: JobError, folder: Path) -> str:
    """Return an error without the names of the architecture and of the folder."""
    assert error.reason == "ModelUnsupported", error
    text = error.message.removeprefix(f"{folder.name}/config.json: ").removesuffix(" Take another base.")
    words = text.split(" of transformers", 1)
    return (
        (words[1] if len(words) > 1 else words[0])
        .removeprefix(", and it ")
        .removeprefix(", and ")
        .strip(" .")
    )


def check_logits(decoder: Decoder, theirs: PreTrainedModel) -> None:
    """Whole sequences, and decoding in rows of a cache at places of their own, as transformers computes sequences."""
    whole = theirs(ids()).logits
    torch.testing.assert_close(decoder(ids()), whole, **CLOSE)
    cache, rows, both = decoder.new_cache(3, LENGTH), torch.tensor([2, 0]), torch.arange(2)
    for row, length in enumerate(FIRST):
        torch.testing.assert_close(
            decoder(ids()[[row], :length], cache, rows[[row]])[0], whole[row, :length], **CLOSE
        )
    for step in range(3):
        at = torch.tensor(FIRST) + step
        logits = decoder(ids()[both, at][:, None], cache, rows)[:, 0]
        torch.testing.assert_close(logits, whole[both, at], **CLOSE)


def test_documents_that_see_each_other_are_found_out(tmp_path: Path) -> None:
    """The masks that transformers makes for OPT let a document see the one before it."""
    AutoModelForCausalLM.from_config(tiny("opt")).save_pretrained(tmp_path)
    decoder = directory.load_decoder(tmp_path)
    trial.try_out(decoder, apart=True)
    decoder._apart = lambda positions_BT: None  # type: ignore[method-assign]
    trial.try_out(decoder, apart=False)
    with pytest.raises(JobError, match=r"InvalidConfig.*acrossDocuments is false, but in a OPTForCausalLM"):
        trial.try_out(decoder, apart=True)


def test_layers_that_each_process_would_skip_at_random_are_refused(tmp_path: Path) -> None:
    config = tiny("opt")
    config.update({"layerdrop": 0.1})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    decoder = directory.load_decoder(tmp_path)
    trial.try_out(decoder, apart=False)
    with pytest.raises(JobError, match=r"ModelUnsupported: layerdrop is 0\.1 in .*train in one process"):
        trial.try_out(decoder, apart=False, processes=Processes(Layout(2)))


def documents_are_apart(decoder: Decoder, theirs: PreTrainedModel) -> bool:
    """Return whether documents in one sequence have the logits that they have alone in transformers."""
    positions = torch.stack([torch.cat((torch.arange(n), torch.arange(LENGTH - n))) for n in FIRST])
    packed = decoder.with_routing(ids(), positions)[0]
    alone = [
        torch.cat([theirs(ids()[[row], :n]).logits[0], theirs(ids()[[row], n:]).logits[0]])
        for row, n in enumerate(FIRST)
    ]
    return torch.allclose(packed, torch.stack(alone), **CLOSE)


def check_ties(folder: Path, theirs: PreTrainedModel) -> None:
    """A checkpoint that holds another weight where the config says tied is loaded as transformers loads it."""
    tensors = load_file(folder / reading.WHOLE)
    generator = torch.Generator().manual_seed(2)
    for name in theirs.all_tied_weights_keys:
        tied = theirs.get_parameter(name)
        tensors[name] = torch.randn(tied.shape, generator=generator) * 0.2
    save_file(tensors, folder / reading.WHOLE, metadata={"format": "pt"})
    untied = AutoModelForCausalLM.from_pretrained(folder).eval()
    decoder = directory.load_decoder(folder)
    with torch.no_grad():
        expected = untied(ids()).logits
        assert not torch.allclose(expected, theirs(ids()).logits, **CLOSE)
        torch.testing.assert_close(decoder(ids()), expected, **CLOSE)
    (folder / "again").mkdir()
    directory.save(folder / "again", decoder)
    again = load_file(folder / "again" / reading.WHOLE)
    assert again.keys() == tensors.keys() and all(torch.equal(again[key], tensors[key]) for key in again)


def check_training(decoder: Decoder) -> None:
    logits = decoder.train().with_routing(ids())[0]
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids()[:, 1:].flatten()).backward()
    gradients = [parameter.grad for parameter in decoder.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    decoder.eval()


def experts_in_words(decoder: Decoder) -> str:
    try:
        bankable(decoder)
    except JobError:
        if not any(_is_of_experts(name, weight) for name, weight in decoder.named_parameters()):
            return "none"
        return "balanced and cut" if decoder.backend(1) is not None else "computed by transformers"
    return "balanced, cut, with a bank"


def _is_of_experts(name: str, weight: Tensor) -> bool:
    """Return whether a weight is that of in-layer experts; parts that see or hear have weights of three dimensions too."""
    return ".experts." in name or (weight.dim() == 3 and len(weight) == EXPERTS)


def updated(decoder: Decoder) -> str:
    """Return the parts that LoRA updates; with updates of zero the decoder computes what it did."""
    training = TrainingSpec(
        method="LoRA", learning_rate=0.1, max_steps=1, batch_tokens=512, checkpoint_every=1
    )
    with torch.no_grad():
        before = decoder(ids())
        try:
            LoRA().attach(decoder, training, 3)
        except JobError as error:
            assert error.reason in ("InvalidConfig", "ModelUnsupported")
            return "refused"
        torch.testing.assert_close(decoder(ids()), before, **CLOSE)
    words = {"Attention": "attention", "FeedForward": "feed-forward", "InLayerExperts": "in-layer experts"}
    return ", ".join(words[part] for part in words if part in _parts(decoder))


def table() -> str:
    """Return the table of the page."""
    usable: dict[Usable, list[str]] = {}
    others: dict[str, list[str]] = {}
    for kind in KINDS:
        with TemporaryDirectory() as folder:
            what = UNTRIED[kind] if kind in UNTRIED else found(kind, Path(folder) / "base")
        if isinstance(what, str):
            others.setdefault(f"not tried: {what}" if kind in UNTRIED else what, []).append(kind)
        else:
            usable.setdefault(what, []).append(kind)
    rows = (
        [listed(kinds), what.lora, what.in_layer_experts, what.apart]
        for what, kinds in sorted(usable.items(), key=lambda item: (-len(item[1]), item[1]))
    )
    refused = ([listed(kinds), what] for what, kinds in sorted(others.items(), key=lambda item: item[1]))
    total = sum(map(len, usable.values()))
    return "\n".join(
        [
            f"Of the {len(KINDS)} architectures of transformers {transformers_version()}, {total} are loaded, trained, "
            "evaluated and served:",
            "",
            *markdown(["`model_type`", "LoRA updates", "in-layer experts", "`acrossDocuments: false`"], rows),
            "",
            "The others:",
            "",
            *markdown(["`model_type`", "what is said of it"], refused),
            "",
        ]
    )


def markdown(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def listed(kinds: Iterable[str]) -> str:
    return ", ".join(f"`{kind}`" for kind in kinds)


def transformers_version() -> str:
    from importlib.metadata import version

    return version("transformers")


def written() -> str:
    return PAGE.read_text().split(BEGIN)[1].split(END)[0]


def test_the_table_of_architectures_says_what_they_can() -> None:
    assert table() == written(), "write it again: python -m tests.trainer.hugging_face.test_architectures"


def test_every_architecture_is_in_the_table_once() -> None:
    named = [
        kind
        for line in written().splitlines()
        if line.startswith("| `")
        for kind in line.split("|")[1].split(",")
    ]
    assert sorted(kind.strip(" `") for kind in named if "model_type" not in kind) == sorted(KINDS)
    assert len(MODEL_FOR_CAUSAL_LM_MAPPING) >= len(KINDS) > 100


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
    sys.exit()
