"""Which addresses requests to pods are sent to.

What the API server or a name server says is an address may be one of the machine that asks, or of its cloud's metadata
service. The operator and the gateway send requests only to addresses that a pod can have.
"""

from ipaddress import IPv6Address, ip_address

#: Address to listen on where the environment names none: outside a cluster.
OUTSIDE_A_CLUSTER = "127.0.0.1"


def is_pod_address(text: str, *, own: str) -> bool:
    """Return whether a text is an address that a pod can have, and that may be asked from the address ``own``.

    Link-local, multicast and unspecified addresses are not. Loopback addresses are only if ``own`` is one too: on the
    small node of ``moectl local``, every pod has one.
    """
    try:
        address = ip_address(text)
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        address = mapped or address
        loopback_allowed = ip_address(own).is_loopback
    except ValueError:
        return False
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    return loopback_allowed or not address.is_loopback
