"""``generation_config.json``: how an artefact likes to be sampled, as Hugging Face's libraries read it."""

import json
from pathlib import Path

from moe_formats.format import parse_json

FILE = "generation_config.json"

#: Where nothing says otherwise: tokens are drawn as often as the model deems them probable.
DEFAULT_TEMPERATURE = 1.0


def temperature_of(folder: Path) -> float:
    """Return the temperature that an artefact is sampled at; 1 where it does not say, 0 if it never samples.

    A file that says something else than a number of 0 to 2 is taken as saying nothing: it is a habit, not
    what the weights mean.
    """
    try:
        found = parse_json((folder / FILE).read_bytes())
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
    """Say in an artefact that is not committed yet how it is sampled; 0: never, the most probable token is taken."""
    path = folder / FILE
    found = json.loads(path.read_text()) if path.exists() else {}
    found.pop("temperature", None)
    sampled = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    path.write_text(json.dumps(found | sampled, indent=2, sort_keys=True) + "\n")
