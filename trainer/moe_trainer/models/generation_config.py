"""``generation_config.json``: how an artefact is sampled by default, as Hugging Face's libraries read it."""

import json
from pathlib import Path

from moe_formats.beneath import Root
from moe_trainer import limits, untrusted
from moe_trainer.storage.files import remove, write_file

FILE = "generation_config.json"

#: The temperature if none is given: tokens are drawn with the model's own probabilities.
DEFAULT_TEMPERATURE = 1.0


def temperature_of(folder: Path) -> float:
    """Return the temperature at which an artefact is sampled; 1 if it does not say, 0 if it is not to be sampled.

    A value that is not a number from 0 to 2 is ignored: the file is only a preference, and no reason to refuse the
    weights.
    """
    try:
        found = untrusted.parse(untrusted.read(folder / FILE, limits.CONFIG_BYTES))
    except (FileNotFoundError, ValueError):
        return DEFAULT_TEMPERATURE
    if not isinstance(found, dict):
        return DEFAULT_TEMPERATURE
    if found.get("do_sample") is False:
        return 0.0
    temperature = found.get("temperature")
    if isinstance(temperature, int | float) and 0 <= temperature <= 2:
        return float(temperature)
    return DEFAULT_TEMPERATURE


def set_temperature(folder: Path, temperature: float) -> None:
    """Write the temperature into an artefact that is not committed yet; at 0 the most probable token is always taken."""
    try:
        with Root(folder) as working:
            found = json.loads(working.read(FILE, limits.CONFIG_BYTES, links=False))
            remove(working, FILE)
    except FileNotFoundError:
        found = {}
    found.pop("temperature", None)
    sampled = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    write_file(folder / FILE, json.dumps(found | sampled, indent=2, sort_keys=True) + "\n")
