"""A pool in a store: three domains of made-up language, a base that read all, an Expert for each."""

import dataclasses
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from moe_formats.job_config import (
    ArtefactRef,
    ExpertRef,
    HoldoutRef,
    HoldoutRule,
    SnapshotJob,
    SnapshotRef,
    Source,
)
from moe_trainer import snapshot
from moe_trainer.environment import Environment
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.text.tokenizer import ByteTokenizer

DOMAINS = ("birds", "metals", "rivers")
LETTERS = "abcdefghijklmnop"
CONFIG = ModelConfig(
    vocab_size=ByteTokenizer.vocab_size,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    num_experts=2,
    num_experts_per_tok=1,
    moe_intermediate_size=32,
    max_position_embeddings=384,
    rope_theta=100.0,
    initializer_range=0.08,
)


@dataclass(frozen=True)
class Pool:
    """Where everything is, and what was made."""

    environment: Environment
    experts: dict[str, ExpertRef]
    snapshots: dict[str, SnapshotRef]
    anchors: dict[str, HoldoutRef]
    models: dict[str, ArtefactRef]

    def path(self, reference: ArtefactRef | HoldoutRef | SnapshotRef) -> Path:
        """Return where a reference leads."""
        return self.environment.store / reference.path


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A pool that tests must not alter; those that do copy its store."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("pool")
    environment = Environment(store=root / "store", sources=root / "sources", scratch=root)
    environment.store.mkdir()
    made = Pool(environment, {}, {}, {}, {})
    for domain in DOMAINS:
        write_domain(root / "sources" / "corpora" / domain, seed=domain)
        take_snapshot(made, domain, domain, f"{domain}/*.txt")
    take_snapshot(made, "general", None, "*/*.txt")
    train(made, "general", "general-1", steps=60)
    for domain in DOMAINS:
        train(made, domain, f"{domain}-1", steps=40, parent=made.models["general-1"])
    return made


@pytest.fixture
def own_pool(pool: Pool, tmp_path: Path) -> Pool:
    """A copy of the pool that a test may alter."""
    made_by_tests = shutil.ignore_patterns("cells", "evaluations")
    shutil.copytree(pool.environment.store, tmp_path / "store", ignore=made_by_tests)
    return dataclasses.replace(
        pool, environment=dataclasses.replace(pool.environment, store=tmp_path / "store")
    )


def write_domain(
    folder: Path, seed: str, documents: int = 100, *, delivery: str = "", changed: int = 0
) -> None:
    """Write text files in a language of its own: all have the same letters, each another next letter.

    A further ``delivery`` has other documents of that language, in which so many letters have ``changed`` the next one.
    """
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    following = dict(zip(LETTERS, draw.sample(LETTERS, len(LETTERS)), strict=True))
    if delivery:
        draw = random.Random(seed + delivery)
        shifted = LETTERS[:changed]
        following |= dict(
            zip(shifted, [following[letter] for letter in shifted[1:] + shifted[:1]], strict=True)
        )
    for number in range(documents):
        words = []
        for _ in range(draw.randint(90, 140)):
            word = draw.choice(LETTERS)
            while draw.random() < 0.8:
                word += following[word[-1]] if draw.random() < 0.7 else draw.choice(LETTERS)
            words.append(word)
        (folder / f"{number:03}.txt").write_text(" ".join(words) + ".\n")


def take_snapshot(pool: Pool, name: str, domain: str | None, path: str) -> None:
    """Run the snapshot Job of an Expert and note its anchor."""
    expert = ExpertRef(name=name, uid=f"uid-{name}", domain=domain)
    found = snapshot.run(
        SnapshotJob(
            pool_uid="pool",
            expert=expert,
            sources=(Source(root="corpora", path=path, format="text"),),
            holdout=HoldoutRule(fraction=0.3, salt="tests"),
        ),
        pool.environment,
    )
    pool.experts[name] = expert
    pool.snapshots[name] = SnapshotRef(path=found.path, digest=found.digest)
    pool.anchors[name] = HoldoutRef(
        domain=domain, expert=name, path=found.anchor.path, digest=found.anchor.digest
    )


def train(pool: Pool, expert: str, revision: str, *, steps: int, parent: ArtefactRef | None = None) -> None:
    """Train a very small model on an Expert's snapshot and commit it."""
    model = Model(CONFIG)
    if parent:
        model, _ = checkpoint_format.load(pool.path(parent), parent.digest)
    else:
        initialise(model, seed=1)
    text = b"".join(d.text.encode() for d in read_documents(pool.path(pool.snapshots[expert])))
    data = torch.tensor(list(text))
    generator = torch.Generator().manual_seed(7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(steps):
        starts = torch.randint(0, len(data) - 128, (16,), generator=generator)
        ids_BT = torch.stack([data[start : start + 128] for start in starts])
        loss = F.cross_entropy(model(ids_BT[:, :-1]).flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    path = f"pools/pool/experts/uid-{expert}/revisions/{revision}/a1"
    digest = checkpoint_format.write(pool.environment.store, path, model, ByteTokenizer(), "{}")
    ancestry = (*(parent.ancestry if parent else ()), pool.snapshots[expert])
    pool.models[revision] = ArtefactRef(revision=revision, path=path, digest=digest, ancestry=ancestry)
