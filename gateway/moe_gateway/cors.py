"""Lets pages in a browser use the gateway (CORS), where the pool allows their origin.

Without it, a browser sends such requests nowhere: it first asks by OPTIONS whether it may. That question carries no API
key, so it is answered without one.
"""

import re

from aiohttp import web

from moe_gateway.policy_file import LoadedPolicy

#: What pages may read besides the body.
_EXPOSED = (
    "x-request-id, x-moe-expert, x-moe-revision, x-moe-strategy, x-moe-confidence, x-moe-policy, Retry-After, "
    "x-should-retry"
)
#: Seconds for which a browser need not ask again.
_MAX_AGE = "600"


def answer_headers(request: web.Request, loaded: LoadedPolicy | None) -> dict[str, str]:
    """Return the headers by which a browser lets the page that asks read the answer; none if its origin may not."""
    allowed = loaded.policy.allowed_origins if loaded is not None else None
    origin = request.headers.get("Origin")
    if not allowed:
        return {}
    if "*" in allowed:
        return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": _EXPOSED}
    if origin not in allowed:
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": _EXPOSED,
        "Vary": "Origin",
    }


def preflight(request: web.Request, loaded: LoadedPolicy | None) -> web.Response | None:
    """Return the answer to a browser's question whether it may send a request; None if it may not."""
    headers = answer_headers(request, loaded)
    if "Access-Control-Allow-Origin" not in headers or "Access-Control-Request-Method" not in request.headers:
        return None
    asked = request.headers.get("Access-Control-Request-Headers", "")
    names = [name.strip() for name in asked.split(",")]
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": ", ".join(
                name for name in names if re.fullmatch(r"[A-Za-z0-9-]{1,64}", name)
            ),
            "Access-Control-Max-Age": _MAX_AGE,
        },
    )
