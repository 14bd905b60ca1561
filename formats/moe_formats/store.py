"""Where everything lies in a pool's store. The layout is defined here and nowhere else.

    pools/<pool uid>/
      held-out.jsonl                     fingerprints of all documents ever held out; append-only
      cells/                             the matrix: one file a cell
      imports/<digest>/                  a checkpoint from outside
      tasks/<digest>/                    the items of an evaluator
      tables/<digest>/                   tables of the Distilled strategy
      compositions/<digest>/             the checkpoint of several banks on one base
      experts/<expert uid>/
        clusters.jsonl                   near-duplicate clusters, with the side each got when first seen
        windows.jsonl                    its windows, oldest first
        holdouts/<digest>/               one window: documents.jsonl
        snapshots/<data digest>/         documents.jsonl (training side), snapshot.json, report.json
        revisions/<inputs digest>/
          checkpoints/step-00000100/     the last two
          tokens/<digest>/               what is trained on, as tokens; goes when training is done
          a1/ a2/ …                      artefacts, by attempt: at most one is committed
          evaluations/<digest>/          evidence

Folders that end in a digest are named by its first 16 hexadecimal digits and committed by a manifest
(manifest.py). All paths are relative to the store, so that they mean the same wherever it is mounted.
"""

from moe_formats.format import Digest, digest_of

#: The folder of a pool that holds checkpoints from outside.
IMPORTS = "imports"


def short(digest: Digest) -> str:
    """Return the part of a digest that names folders."""
    return digest.removeprefix("sha256:")[:16]


def pool(uid: str) -> str:
    """Return the pool's folder."""
    return f"pools/{_component(uid)}"


def held_out_registry(pool_uid: str) -> str:
    """Return the file with the fingerprints of every document that the pool ever held out."""
    return f"{pool(pool_uid)}/held-out.jsonl"


def cells(pool_uid: str) -> str:
    """Return the folder of the matrix's cells."""
    return f"{pool(pool_uid)}/cells"


def tasks(pool_uid: str, digest: Digest) -> str:
    """Return the folder of an evaluator's items."""
    return f"{pool(pool_uid)}/tasks/{short(digest)}"


def imported(pool_uid: str, digest: Digest) -> str:
    """Return the folder of a checkpoint from outside that Experts of the pool have as base."""
    return f"{pool(pool_uid)}/{IMPORTS}/{short(digest)}"


def table(pool_uid: str, digest: Digest) -> str:
    """Return the folder of one table of the Distilled strategy."""
    return f"{pool(pool_uid)}/tables/{short(digest)}"


def composition(pool_uid: str, digest: Digest) -> str:
    """Return the folder of the checkpoint that some banks make on their base."""
    return f"{pool(pool_uid)}/compositions/{short(digest)}"


def expert(pool_uid: str, expert_uid: str) -> str:
    """Return an Expert's folder."""
    return f"{pool(pool_uid)}/experts/{_component(expert_uid)}"


def clusters(pool_uid: str, expert_uid: str) -> str:
    """Return the file with an Expert's near-duplicate clusters and their sides."""
    return f"{expert(pool_uid, expert_uid)}/clusters.jsonl"


def windows(pool_uid: str, expert_uid: str) -> str:
    """Return the file that lists an Expert's windows, oldest first."""
    return f"{expert(pool_uid, expert_uid)}/windows.jsonl"


def holdout(pool_uid: str, expert_uid: str, digest: Digest) -> str:
    """Return the folder of one window."""
    return f"{expert(pool_uid, expert_uid)}/holdouts/{short(digest)}"


def snapshot(pool_uid: str, expert_uid: str, data_digest: Digest) -> str:
    """Return the folder of one snapshot."""
    return f"{expert(pool_uid, expert_uid)}/snapshots/{short(data_digest)}"


def revision(pool_uid: str, expert_uid: str, inputs_digest: Digest) -> str:
    """Return the folder of everything made from one set of inputs."""
    return f"{expert(pool_uid, expert_uid)}/revisions/{short(inputs_digest)}"


def _component(name: str) -> str:
    """Return a name as one path component; anything but letters, digits, ``-`` and ``_`` is hashed."""
    if name and all(character.isalnum() or character in "-_" for character in name) and name.isascii():
        return name
    return short(digest_of(name))
