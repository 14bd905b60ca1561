"""What a container asks for in its security context and its limits, checked as a kubelet does. Pure.

The node gives no container more than an ordinary user has, so whatever asks for less is honoured without being read:
`allowPrivilegeEscalation: false`, dropped capabilities, a seccomp profile. What asks for more (`privileged`, added
capabilities) is not granted.
"""

from __future__ import annotations

import math

from moe_local.agent import quantity
from moe_local.agent.environment import ConfigurationError
from moe_local.agent.pod import Container, Pod


def asked_user(pod: Pod, container: Container) -> int | None:
    """Return the user that a container asks for; None if it leaves that to the node, whose choice is never root.

    Raises ConfigurationError if it must not run as root but asks for user 0.
    """
    own, shared = container.security_context, pod.spec.security_context
    user = shared.run_as_user if own.run_as_user is None else own.run_as_user
    must_not = shared.run_as_non_root if own.run_as_non_root is None else own.run_as_non_root
    if must_not and user == 0:
        name = f"{pod.metadata.name}_{pod.metadata.namespace}({pod.uid})"
        raise ConfigurationError(
            f'container\'s runAsUser breaks non-root policy (pod: "{name}", container: {container.name}): '
            "runAsUser is 0 and runAsNonRoot is true; set another runAsUser or leave it out"
        )
    return user


def asked_group(pod: Pod, container: Container) -> int | None:
    """Return the group that a container asks for; None if it leaves that to the node."""
    own, shared = container.security_context, pod.spec.security_context
    return shared.run_as_group if own.run_as_group is None else own.run_as_group


def memory_limit(container: Container) -> int:
    """Return the memory that a container may use, in bytes; 0 if it has no limit."""
    text = container.resources.limits.get("memory")
    return math.ceil(quantity.parse(text)) if text else 0
