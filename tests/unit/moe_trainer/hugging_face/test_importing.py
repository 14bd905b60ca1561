"""Checkpoints from outside: copied whole or not at all, and named by what they hold."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.job_config import ImportedBase
from moe_formats.segment_size import SegmentBytes
from moe_trainer import limits
from moe_trainer.environment import Environment
from moe_trainer.hugging_face.importing import digest_of_folder, import_base
from moe_trainer.main import main
from moe_trainer.storage.committed import verify
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.text.tokenizer import ByteTokenizer


def safetensors(header: bytes) -> bytes:
    """Return a file of some header and no tensors."""
    return len(header).to_bytes(8, "little") + header


TAKEN = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": safetensors(b"{}"),
    "model-00002-of-00002.safetensors": safetensors(b"{ }"),
    "chat_template.jinja": b"{{ messages }}",
    "LICENSE": b"Apache-2.0",
}
LEFT = {"modeling_odd.py": b"raise SystemExit", "pytorch_model.bin": b"\x80", "README.md": b"# A model"}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    folder = tmp_path / "sources" / "hub" / "models" / "small"
    folder.mkdir(parents=True)
    for name, content in (TAKEN | LEFT).items():
        (folder / name).write_bytes(content)
    ByteTokenizer().save(folder)
    (folder / "onnx").mkdir()
    (tmp_path / "store").mkdir()
    return Environment(store=tmp_path / "store", sources=tmp_path / "sources")


def folder_of(environment: Environment) -> Path:
    assert environment.sources is not None
    return environment.sources / "hub" / "models" / "small"


def base(environment: Environment) -> ImportedBase:
    return ImportedBase(root="hub", path="models/small", digest=digest_of_folder(folder_of(environment)))


def test_the_copy_is_an_artefact_of_the_digest_that_named_it(environment: Environment) -> None:
    asked = base(environment)
    import_base(asked, "pool", 256, environment)
    copy = environment.store / store.imported("pool", asked.digest)
    assert set(verify(copy.parent, copy.name, asked.digest).files) == {
        *TAKEN,
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for name, content in TAKEN.items():
        assert (copy / name).read_bytes() == content
    assert digest_of_folder(copy) == asked.digest == read_manifest(copy.parent, copy.name)[1]


def test_what_is_there_is_not_read_again(environment: Environment) -> None:
    asked = base(environment)
    import_base(asked, "pool", 256, environment)
    (folder_of(environment) / "config.json").unlink()
    import_base(asked, "pool", 256, environment)
    copy = environment.store / store.imported("pool", asked.digest)
    assert (copy / "config.json").read_bytes() == TAKEN["config.json"]


def test_another_checkpoint_than_its_digest_says_leaves_nothing(environment: Environment) -> None:
    asked = base(environment)
    (folder_of(environment) / "model-00002-of-00002.safetensors").write_bytes(b"altered")
    found = digest_of_folder(folder_of(environment))
    with pytest.raises(
        JobError, match=f"BaseMismatch.*has digest {found}, but base.digest is {asked.digest}"
    ):
        import_base(asked, "pool", 256, environment)
    imports = (environment.store / store.imported("pool", asked.digest)).parent
    assert not imports.exists() or list(imports.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"lacks config\.json\."),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"lacks tokenizer\.json"),
        (
            lambda folder: [path.unlink() for path in folder.glob("*.safetensors")],
            r"weights as safetensors \(pytorch_model\.bin is pickled",
        ),
        (
            lambda folder: [path.unlink() for path in folder.glob("*.*")],
            r"config\.json, tokenizer\.json, weights",
        ),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_what_it_lacks(
    change: Callable[[Path], object], message: str, environment: Environment
) -> None:
    asked = base(environment)
    change(folder_of(environment))
    with pytest.raises(JobError, match=f"BaseMissing: hub/models/small .*{message}"):
        import_base(asked, "pool", 256, environment)


def test_weights_whose_headers_cannot_be_are_refused_before_anything_is_paid_for(
    environment: Environment,
) -> None:
    for data, message in (
        (b"\x80\x04\x95" + bytes(100), "says that its header has 9766016 bytes, of 103 in all"),
        (safetensors(b"[" * 100_000), r"the header of .* cannot be read: it is nested too deeply"),
        (
            safetensors(b'{"w": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}'),
            r"a tensor of shape \[8\] lies at \[0, 32\], in 0 bytes",
        ),
    ):
        (folder_of(environment) / "model-00002-of-00002.safetensors").write_bytes(data)
        with pytest.raises(JobError, match=f"BaseMissing: hub/models/small .*{message}"):
            import_base(base(environment), "pool", 256, environment)


def test_a_tokenizer_that_loses_text_is_refused_as_early(environment: Environment) -> None:
    tokenizer = folder_of(environment) / "tokenizer.json"
    lossy = json.loads(tokenizer.read_bytes()) | {"normalizer": {"type": "Lowercase"}}
    lossy["model"]["vocab"]["more"] = ByteTokenizer.vocab_size  # so that it is not the presets'
    tokenizer.write_text(json.dumps(lossy))
    with pytest.raises(
        JobError, match=r"TokenizerUnsupported: tokenizer\.json does not reproduce a text exactly"
    ):
        import_base(base(environment), "pool", 256, environment)


def other_tokenizer(environment: Environment, template: str | None = None, **change: object) -> None:
    """Give the base a tokenizer that is not the presets'."""
    folder = folder_of(environment)
    made = json.loads((folder / "tokenizer.json").read_bytes()) | change
    made["model"]["vocab"]["more"] = ByteTokenizer.vocab_size
    (folder / "tokenizer.json").write_text(json.dumps(made))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)


def test_a_template_or_tokenizer_that_does_too_much_is_refused_as_early(environment: Environment) -> None:
    other_tokenizer(environment, "{{ 'a' * 5000000000 }}")
    with pytest.raises(
        JobError, match=r"ChatTemplateUnsupported.*\(chat_template\.jinja\).*more than .* characters"
    ):
        import_base(base(environment), "pool", 256, environment)
    other_tokenizer(environment, pre_tokenizer={"type": "FixedLength", "length": 0})
    with pytest.raises(
        JobError, match=r"TokenizerUnsupported: tokenizer\.json cannot encode .*PanicException"
    ):
        import_base(base(environment), "pool", 256, environment)
    assert not any((environment.store / "pools").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"num_hidden_layers": 1000000}', "num_hidden_layers is 1,000,000: it must be"),
        ('{"num_hidden_layers": 3}', "num_hidden_layers is 3, but the weights hold only 0 tensors"),
        ('{"a": ' * 70 + "1" + "}" * 70, "it is nested too deeply"),
        ('{"a": "' + "a" * limits.CONFIG_BYTES + '"}', "has more than 16,777,216 bytes"),
        ("[]", "config.json is not a JSON object"),
    ],
)
def test_a_config_that_asks_for_too_much_is_refused_as_early(
    config: str, message: str, environment: Environment
) -> None:
    (folder_of(environment) / "config.json").write_text(config)
    with pytest.raises(JobError, match=f"ModelUnsupported: config.json of .*{message}"):
        import_base(base(environment), "pool", 256, environment)


@pytest.mark.parametrize("size", [256, 3968])
def test_one_that_cannot_see_a_segment_is_refused_before_its_weights_are_copied(
    environment: Environment, size: SegmentBytes
) -> None:
    (folder_of(environment) / "config.json").write_text(f'{{"max_position_embeddings": {size + 127}}}')
    with pytest.raises(
        JobError, match=f"ContextTooShort.*config.json of the base hub/models/small is {size + 127}"
    ):
        import_base(base(environment), "pool", size, environment)
    assert list(environment.store.iterdir()) == []


def test_one_that_is_there_already_is_refused_as_well(environment: Environment) -> None:
    (folder_of(environment) / "config.json").write_text('{"max_position_embeddings": 4095}')
    asked = base(environment)
    import_base(asked, "pool", 256, environment)
    with pytest.raises(JobError, match=r"ContextTooShort.*take 4096 tokens"):
        import_base(asked, "pool", 3968, environment)


def test_the_command_prints_the_digest_or_what_is_wrong(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["digest", str(folder_of(environment))]) == 0
    assert capsys.readouterr().out.strip() == base(environment).digest
    assert main(["digest", str(environment.store)]) == 64
    assert "BaseMissing" in capsys.readouterr().err
    assert main(["digest", str(environment.store / "none")]) == 64
    assert "none holds no checkpoint that can be a base: there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\nb.safetensors", "\udcff.json"])
def test_a_name_that_is_no_text_is_refused_and_can_be_told(environment: Environment, name: str) -> None:
    asked = base(environment)
    (folder_of(environment) / name).write_bytes(b"{}")
    with pytest.raises(JobError, match=r"BaseMissing.*has characters that are no text") as refused:
        import_base(asked, "pool", 256, environment)
    assert refused.value.message.isprintable()
    refused.value.headline().to_json().encode()


def test_the_links_of_a_cache_are_followed_beneath_the_source(environment: Environment) -> None:
    asked = base(environment)
    folder = folder_of(environment)
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in folder.iterdir() if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../blobs/{number}")
    import_base(asked, "pool", 256, environment)
    copy = environment.store / store.imported("pool", asked.digest)
    assert set(verify(copy.parent, copy.name, asked.digest).files) == {
        *TAKEN,
        "tokenizer.json",
        "tokenizer_config.json",
    }
