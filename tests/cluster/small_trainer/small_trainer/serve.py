"""`serve` of the small trainer: the endpoints that a gateway and a kubelet ask, answered at once."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

from moe_formats.failure import from_exception
from moe_formats.serve_config import ServeConfig, parse_serve_config
from small_trainer import model

#: Seconds for which a stopping server still takes requests, as the real one.
LAME_DUCK_SECONDS = 1.0


class Server:
    """One revision."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.draining = False

    def application(self) -> web.Application:
        app = web.Application()
        app.on_response_prepare.append(self._name_revision)
        app.add_routes(
            [
                web.get("/ready", self._ready),
                web.get("/health", self._health),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
            ]
        )
        return app

    async def _name_revision(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["x-moe-expert"] = self.config.expert
        response.headers["x-moe-revision"] = self.config.revision

    async def _ready(self, request: web.Request) -> web.Response:
        asked = request.query.get("digest", self.config.artefact.digest)
        good = asked == self.config.artefact.digest and not self.draining
        return web.json_response({"ready": good}, status=200 if good else 503)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.config.expert, "object": "model"}]})

    async def _completions(self, request: web.Request) -> web.Response:
        await request.read()
        choice = {"index": 0, "text": self.config.revision, "finish_reason": "stop", "logprobs": None}
        answer = {"id": "cmpl-small", "object": "text_completion", "created": 0, "model": self.config.expert}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return web.json_response(answer | {"choices": [choice], "usage": usage})


async def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    model.load(Path(os.environ["MOE_STORE"]) / config.artefact.path, config.artefact.digest)
    server = Server(config)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, os.environ["POD_IP"], int(os.environ["PORT"])).start()
    await stopping.wait()
    server.draining = True
    await asyncio.sleep(LAME_DUCK_SECONDS)
    await runner.cleanup()


def main() -> int:
    """Run the command and return its exit code."""
    try:
        asyncio.run(serve(parse_serve_config(os.environ["MOE_SERVE_CONFIG"])))
        return 0
    except Exception as error:  # the border, as in the real one
        failed = from_exception(error)
        print(failed, file=sys.stderr, flush=True)
        Path(os.environ["MOE_TERMINATION_LOG"]).write_text(failed.headline().to_json())
        return failed.exit_code
