"""The API key of a gateway that asks for one: from a file or from the environment, never from the command line.

Whoever is on the machine can read the arguments of all processes, so no option takes the key itself.
"""

import os
import re
from pathlib import Path

from moe_client.errors import ClientError

#: Environment variable with the key, for whoever gives no file.
VARIABLE = "MOE_API_KEY"


def api_key(file: Path | None) -> str | None:
    """Return the first key in a file, written as for gateways, or else the one in MOE_API_KEY; None if there is neither.

    Raises ClientError if the file cannot be read, or if what is there is no key.
    """
    if file is None:
        where, text = VARIABLE, os.environ.get(VARIABLE, "")
        if not text:
            return None
    else:
        where = f"--api-key-file: {file}"
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ClientError(f"{where} cannot be read: {error}") from None
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    key = next((line for line in lines if line), "")
    if not re.fullmatch(r"[!-~]+", key):
        raise ClientError(
            f"{where} has no API key: it must be one line of ASCII letters, digits and signs, without spaces"
        )
    return key
