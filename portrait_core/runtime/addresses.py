"""Addresses to which a URL of a portrait or a video may lead.

A manifest or a stored job may be a stranger's, and this process asks for what it names: a URL could reach a
service that only this machine or its network can reach, such as a cloud's store of credentials at
169.254.169.254. Every connection is compared with this rule, those that a redirect or a changed name leads to
included.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

EVERY = "*"
"""Name that stands for all hosts."""

_private_hosts: tuple[str, ...] = ()


class PrivateAddressError(OSError):
    """A URL leads to an address of this machine or its network, and the host was not allowed."""


def use_private_hosts(hosts: Iterable[str]) -> None:
    """Set the hosts of this machine or its network to which URLs may lead, for all threads of this process.

    Args:
        hosts: ``HOST`` or ``HOST:PORT`` each; :data:`EVERY` allows all.
    """
    global _private_hosts
    _private_hosts = tuple(hosts)


def host_of(place: str) -> str:
    """Return ``HOST:PORT`` of an http URL; nothing for other places and for malformed URLs."""
    scheme, mark, _ = place.partition("://")
    if not mark or scheme not in ("http", "https"):
        return ""
    try:
        parts = urlsplit(place)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host:
        return ""
    return f"{f'[{host}]' if ':' in host else host}:{port or (443 if scheme == 'https' else 80)}"


def refuse_private(address: str, port: int) -> None:
    """Check the address of a connection before it is made.

    Args:
        address: IP address.
        port: its port.

    Raises:
        PrivateAddressError: the address is not public, and no allowed host has it.
    """
    ip = _plain(address)
    if (ip.is_global and not ip.is_multicast) or EVERY in _private_hosts:
        return
    for host in _private_hosts:
        if any(_plain(found) == ip for found in _addresses(host, port)):
            return
    raise PrivateAddressError(
        f"it leads to {address}, an address of this machine or its network; if that is meant, allow it with "
        f"--set 'runner.private_hosts=[\"{f'[{address}]' if ':' in address else address}:{port}\"]'"
    )


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an IP address, of an IPv4 one inside an IPv6 one the inner one."""
    ip = ipaddress.ip_address(address)
    inner = (ip.ipv4_mapped or ip.sixtofour) if isinstance(ip, ipaddress.IPv6Address) else None
    return inner or ip


def _addresses(host: str, port: int) -> set[str]:
    """Return the addresses of an allowed host; none when it names another port, or is not known."""
    try:
        named = urlsplit(f"//{host}")
        if named.hostname is None or named.port not in (None, port):
            return set()
        found = socket.getaddrinfo(named.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return set()
    return {str(entry[4][0]) for entry in found}
