"""Where a server listens, and with which certificate."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path

from ...errors import InputError


def check_address(host: object, port: object) -> None:
    """Raises InputError for what is no host, or no port to listen at; 0 is any free one."""
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise InputError(f"got port {port!r}, wanted a whole number from 0 (any free one) to 65535: choose another")
    if not isinstance(host, str) or not host:
        raise InputError(f"got host {host!r}, wanted a name or an address such as 127.0.0.1: choose another")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach it; a name is believed where it is localhost alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server speaks TLS with. Raises InputError for files that are no certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        got = f"got {certificate} and {key}"
        raise InputError(f"{got}, wanted a certificate and its key as PEM files ({error})") from None
    return context


def url_of(scheme: str, host: str, port: int) -> str:
    """Where to reach, from this machine, what listens at an address."""
    address = ip_address(host)
    if address.is_unspecified:  # bound to every address: this one is always there
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"{scheme}://[{address}]:{port}" if address.version == 6 else f"{scheme}://{address}:{port}"
