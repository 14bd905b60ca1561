"""``moe-trainer serve``: load one artefact, or the banks on one base, and answer the OpenAI API until SIGTERM.

After SIGTERM, requests in flight are finished. It reads MOE_SERVE_CONFIG, MOE_STORE, PORT, METRICS_PORT and
POD_IP. Metrics are on a port of their own, so that a NetworkPolicy can admit Prometheus without admitting requests; without
METRICS_PORT they are served nowhere. An artefact is loaded only if its manifest has the digest in the config; otherwise
the process ends with exit code 64 and says why in the termination message.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from moe_formats.failure import JobError, from_exception
from moe_formats.job_report import EXIT_OK
from moe_formats.serve_config import ServeConfig, ServedExpert, parse_serve_config
from moe_trainer.methods import adapter, artefacts
from moe_trainer.methods.adapter import checkpoint_of
from moe_trainer.methods.composition import compose
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.device import use_device
from moe_trainer.models.generation_config import FILE, temperature_of
from moe_trainer.server.app import ExpertServer
from moe_trainer.server.engine import Engine
from moe_trainer.storage.committed import Committed
from moe_trainer.text.tokenizer import Tokenizer
from moe_trainer.untrusted import is_panic
from moe_web.listener import Listener, run_until_stopped

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The settings in the environment variables."""

    config: ServeConfig
    store: Path
    host: str
    port: int
    #: Port of /metrics; None: no such port.
    metrics_port: int | None = None

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Settings":
        """Return the settings; raises JobError (InvalidConfig, InvalidEnvironment), which names the field."""
        try:
            config = parse_serve_config(variables.get("MOE_SERVE_CONFIG", ""))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the text"
            raise JobError("InvalidConfig", f"MOE_SERVE_CONFIG: {where}: {first['msg']}") from None
        port = _port("PORT", variables.get("PORT", "8000"))
        metrics = variables.get("METRICS_PORT")
        if not variables.get("MOE_STORE"):
            raise JobError(
                "InvalidEnvironment", "MOE_STORE is not set: it must name the mounted store of the pool."
            )
        return cls(
            config,
            Path(variables["MOE_STORE"]),
            variables.get("POD_IP") or "127.0.0.1",
            port,
            _port("METRICS_PORT", metrics) if metrics else None,
        )


def _port(name: str, text: str) -> int:
    if not (text.isdigit() and int(text) < 65536):
        raise JobError("InvalidEnvironment", f"{name} is {text!r}: it must be a port, 0 to 65535.")
    return int(text)


def load(config: ServeConfig, store: Path) -> tuple[ExpertServer, Engine]:
    """Load the artefact and return its server and engine, which is not started yet; raises JobError (ArtefactCorrupt)."""
    loaded = _load_model(config, store)
    model = loaded.model
    max_context = min(config.max_context or model.context, model.context)
    engine = Engine(
        model,
        max_context=max_context,
        max_batch=config.max_batch,
        max_queue=config.max_queue,
        choose_banks=loaded.choose_banks,
    )
    temperatures = {entry.expert: _temperature(entry, store) for entry in (config, *config.banks)}
    return ExpertServer(config, engine, loaded.tokenizer, max_context, temperatures, loaded.banks), engine


@dataclass(frozen=True)
class _Loaded:
    """A model, and the number of each Expert's bank in it, if it is composed of banks."""

    model: CausalModel
    tokenizer: Tokenizer
    banks: Mapping[str, int]
    choose_banks: Callable[[Sequence[int | None]], None] | None


def _load_model(config: ServeConfig, store: Path) -> _Loaded:
    """Load the artefact; if other Experts are served too, the base with all their banks."""
    if not config.banks:
        model, tokenizer = artefacts.load(store, config.artefact.path, config.artefact.digest)
        return _Loaded(model, tokenizer, {}, None)
    names = [entry.expert for entry in (config, *config.banks)]
    if len(set(names)) < len(names):
        raise JobError(
            "InvalidConfig",
            f"each Expert can be served only once, but expert and banks name {', '.join(names)}.",
        )
    first = adapter.read(store, config.artefact.path, config.artefact.digest)
    entries: list[ServedExpert] = [*([] if first is None else [config]), *config.banks]
    composed = compose(store, [(entry.artefact.path, entry.artefact.digest) for entry in entries])
    if first is None and config.artefact.digest != composed.base.digest:
        raise JobError(
            "InvalidConfig",
            f"{config.expert} is not the base of the banks that are to be served with it, which is "
            f"{composed.base.revision}: serve it by itself.",
        )
    banks = {entry.expert: number for number, entry in enumerate(entries)}
    return _Loaded(composed.model, composed.tokenizer, banks, composed.choose)


def _temperature(entry: ServedExpert, store: Path) -> float:
    if entry.temperature is not None:
        return entry.temperature
    with Committed(store, entry.artefact.path, entry.artefact.digest) as held:
        if FILE in held.manifest.files:
            return temperature_of(held.show())
    with Committed(store, *checkpoint_of(store, entry.artefact.path, entry.artefact.digest)) as base:
        return temperature_of(base.show())


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = settings.config
    server, engine = load(config, settings.store)
    engine.start()
    listeners = [Listener(server.application(), host=settings.host, port=settings.port)]
    if settings.metrics_port is not None:
        metrics = server.metrics_application()
        listeners.append(Listener(metrics, host=settings.host, port=settings.metrics_port))

    def stop_taking() -> None:
        server.draining = True

    await run_until_stopped(listeners, on_stop=stop_taking, drain_seconds=config.drain_seconds)
    engine.stop()


def main() -> int:
    """Run the command and return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    use_device(threads=1)
    torch.set_num_interop_threads(1)
    try:
        asyncio.run(serve(Settings.read(os.environ)))
        return EXIT_OK
    except BaseException as error:  # the border: whatever happened must reach the termination message
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        failed = from_exception(error)
        if failed is not error:
            log.exception("the server ended")
        print(failed, file=sys.stderr, flush=True)
        _leave_message(failed.headline().to_json())
        return failed.exit_code


def _leave_message(text: str) -> None:
    path = os.environ.get("MOE_TERMINATION_LOG") or "/dev/termination-log"
    try:
        Path(path).write_text(text)
    except OSError as error:
        print(f"the termination message could not be written to {path}: {error.strerror}", file=sys.stderr)
