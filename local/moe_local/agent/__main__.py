"""`python -m moe_local.agent --config FILE`: SIGTERM stops the pods and then the agent; SIGKILL leaves them running."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from moe_local.agent.agent import Agent
from moe_local.agent.config import AgentConfig


async def _run(config: AgentConfig) -> None:
    agent = Agent(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    await agent.run()


def main() -> int:
    """Run the agent; return exit status 2 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m moe_local.agent", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="file with an AgentConfig, YAML or JSON")
    path = parser.parse_args().config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    os.umask(0o022)
    try:
        config = AgentConfig.read(path)
    except (OSError, ValidationError, yaml.YAMLError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    gc.freeze()  # what was imported is never garbage, so the collector need not look at it
    try:
        asyncio.run(_run(config))
    except (OSError, ValueError) as error:
        print(f"the node agent cannot run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
