import pytest

from moe_formats.addresses import is_pod_address

POD, NODE, LOCAL = "10.1.2.3", "fd00::9", "127.77.0.5"


@pytest.mark.parametrize(
    ("address", "own", "allowed"),
    [
        ("10.1.2.4", POD, True),
        ("fd00::1", NODE, True),
        ("100.64.0.1", POD, True),
        ("127.0.0.1", POD, False),
        ("127.77.0.9", LOCAL, True),
        ("::1", NODE, False),
        ("169.254.169.254", POD, False),
        ("169.254.169.254", LOCAL, False),
        ("::ffff:169.254.169.254", POD, False),
        ("::ffff:127.0.0.1", POD, False),
        ("fe80::1", NODE, False),
        ("fe80::1%eth0", NODE, False),
        ("0.0.0.0", POD, False),
        ("::", NODE, False),
        ("224.0.0.1", POD, False),
        ("ff02::1", NODE, False),
        ("", POD, False),
        ("@host:80/path#", POD, False),
        ("10.1.2.4:80@host", POD, False),
        ("localhost", LOCAL, False),
        ("0x7f.1", POD, False),
        ("10.1.2.4", "not-an-address", False),
    ],
)
def test_requests_go_only_to_addresses_that_a_pod_can_have(address, own, allowed):
    assert is_pod_address(address, own=own) is allowed
