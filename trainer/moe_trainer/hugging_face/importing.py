"""Imports a checkpoint of Hugging Face as a base: it is copied once into the pool's store, and is then an artefact.

    its digest      the SHA-256 of the manifest that lists every copied file with its size and SHA-256
    in the store    pools/<uid>/imports/<digest>, committed by that manifest

The files of a Hugging Face directory are copied: weights as safetensors, configs, tokenizer, licence. Code and pickles
are not. So the same digest names the same base wherever it is stored, and ``moe-trainer digest FOLDER`` prints it. The
snapshot Job does the copying, because it reads sources anyway, and if a checkpoint is not what its digest says, this is
found before training is paid for. Imports no torch.
"""

import hashlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from moe_formats import context_length, store
from moe_formats.failure import JobError
from moe_formats.format import Digest, digest_of
from moe_formats.job_config import ImportedBase
from moe_formats.segment_size import SegmentBytes
from moe_trainer import limits
from moe_trainer.environment import Environment
from moe_trainer.sources.files import File, Files, LocalFiles, files_of
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import is_committed, new_folder
from moe_trainer.storage.manifest import MANIFEST, FileEntry, Manifest
from moe_trainer.text.tokenizer import ByteTokenizer, Tokenizer, describes_byte_level, is_byte_level
from moe_trainer.weights import model_config, safetensors_header
from moe_trainer.weights.safetensors_header import HeaderError, TensorEntry

_TAKEN = (".safetensors", ".json", ".txt", ".model", ".jinja")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CONFIG = "config.json"
_NEEDED = (CONFIG, "tokenizer.json")
_PIECE = 4 * 1024 * 1024


def import_base(
    base: ImportedBase, pool_uid: str, segment_bytes: SegmentBytes, environment: Environment
) -> None:
    """Copy a checkpoint into the store, unless it is there already.

    Raises JobError: BaseMissing if there is no such checkpoint or it cannot be a base, ContextTooShort if it cannot see
    a segment of ``segment_bytes``, TokenizerUnsupported if its tokenizer loses text, and BaseMismatch if its digest is
    another one; then nothing is left in the store.
    """
    path, where = store.imported(pool_uid, base.digest), f"{base.root}/{base.path}"
    if is_committed(environment.store, path):
        with Committed(environment.store, path, base.digest) as held:
            config = held.read(CONFIG)
        context_length.check(context_length.shortfall_of_checkpoint(where, config, segment_bytes))
        return
    files = files_of(base.root, environment)
    taken = _taken(files, base.path, where)
    context_length.check(context_length.shortfall_of_checkpoint(where, _config(files, taken), segment_bytes))
    check = partial(_check, where=where)
    with new_folder(environment.store, path, "artefact", check=check) as working:
        entries = {_name(file): _copy(files, file, working / _name(file)) for file in taken}
        found = _digest(entries)
        if found != base.digest:
            raise JobError(
                "BaseMismatch",
                f"the checkpoint {where} has digest {found}, but base.digest is {base.digest}. If "
                f"this is the checkpoint that you mean, set base.digest to the digest found; nothing was imported.",
            )
    print(f"imported {where} as {base.digest}", flush=True)


def stored_tokenizer(root: Path, path: str, digest: Digest) -> Tokenizer:
    """Return the tokenizer of a checkpoint that is in a store, where it was tried out before it came there.

    Its files are verified, and the weights are not read. Raises JobError (ArtefactCorrupt).
    """
    from moe_trainer.hugging_face import tokenizer, tokenizer_files  # its library is needed only here

    with Committed(root, path, digest) as held:
        names = tokenizer_files.FILES.keys() & held.manifest.files.keys()
        files = {name: held.read(name) for name in names}
    if describes_byte_level(files[tokenizer_files.TOKENIZER]):
        return ByteTokenizer()
    return tokenizer.CheckpointTokenizer(files)


def digest_of_folder(folder: Path) -> Digest:
    """Return the digest by which a spec names a checkpoint; raises JobError (BaseMissing)."""
    if not folder.is_dir():
        raise _no_base(str(folder), "there is no such folder")
    files = LocalFiles(folder.name, folder)
    taken = _taken(files, "", str(folder))
    return _digest({_name(file): _copy(files, file, None) for file in taken})


def _taken(files: Files, path: str, where: str) -> list[File]:
    """Return the files of a checkpoint that are copied; raises JobError (BaseMissing), which says what is missing."""
    found = files.matching(f"{path}/*" if path else "*")
    taken = [file for file in found if _is_taken(_name(file))]
    for file in taken:
        if not _name(file).isprintable():
            raise _no_base(where, f"the name of {file} has characters that are no text; rename it")
    names = {_name(file) for file in taken}
    lacks = [name for name in _NEEDED if name not in names]
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [_name(file) for file in found if _name(file).endswith(_PICKLES)]
        lacks.append(f"weights as safetensors{_not_pickles(pickles)}")
    if lacks:
        raise _no_base(where, f"it lacks {', '.join(lacks)}")
    return taken


def _check(folder: Path, where: str) -> None:
    """Raise JobError for faults that training would only find once its devices are paid for.

    BaseMissing for weights with wrong headers, ModelUnsupported for a config that asks for more than the weights hold,
    TokenizerUnsupported and ChatTemplateUnsupported for a tokenizer that loses text or needs too much.
    """
    tensors: dict[str, TensorEntry] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= safetensors_header.read(path)
        except HeaderError as error:
            raise _no_base(where, str(error)) from None
        if len(tensors) > limits.TENSORS:
            raise _no_base(where, f"its files hold more than {limits.TENSORS:,} tensors, which is the limit")
    try:
        config = model_config.read(folder)
        model_config.check_sizes(config)
        model_config.check_weights(config, tensors)
    except ValueError as error:
        raise JobError("ModelUnsupported", f"{CONFIG} of the base {where}: {error}.") from None
    if not is_byte_level(folder):
        from moe_trainer.hugging_face.tokenizer import CheckpointTokenizer  # its library is needed only here

        CheckpointTokenizer.load(folder)


def _no_base(where: str, what: str) -> JobError:
    return JobError(
        "BaseMissing",
        f"{where} holds no checkpoint that can be a base: {what}. base.path must name a folder with a checkpoint as "
        "transformers saves it.",
    )


def _config(files: Files, taken: list[File]) -> bytes:
    with files.open(next(file for file in taken if _name(file) == CONFIG)) as source:
        text = source.read(limits.CONFIG_BYTES + 1)
    if len(text) > limits.CONFIG_BYTES:
        raise JobError(
            "ModelUnsupported",
            f"{CONFIG} of a base has more than {limits.CONFIG_BYTES:,} bytes, which is the limit.",
        )
    return text


def _is_taken(name: str) -> bool:
    return name != MANIFEST and (name.endswith(_TAKEN) or name.startswith(_LICENCES))


def _not_pickles(pickles: list[str]) -> str:
    return f" ({pickles[0]} is pickled, and reading it could run any code: convert it)" if pickles else ""


def _name(file: File) -> str:
    return file.path.rpartition("/")[2]


def _copy(files: Files, file: File, target: Path | None) -> FileEntry:
    """Read a whole file, copy it to ``target`` if that is given, and return its size and checksum."""
    hashed, size = hashlib.sha256(), 0
    with files.open(file) as source, target.open("xb") if target else nullcontext() as copy:
        while piece := source.read(_PIECE):
            hashed.update(piece)
            size += len(piece)
            if copy is not None:
                copy.write(piece)
    return FileEntry(sha256=hashed.hexdigest(), size=size)


def _digest(entries: dict[str, FileEntry]) -> Digest:
    """Return the digest of the manifest that new_folder writes for these files."""
    return digest_of(Manifest(kind="artefact", files=dict(sorted(entries.items()))).to_json())
