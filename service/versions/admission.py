"""Decides who may change what is served: by default nobody; with PERSONA_ADMIN=1, this machine."""

import ipaddress
from collections.abc import Iterable

from service.errors import Forbidden

# A proxy on this machine forwards requests of others; a browser sends requests of any page.
FROM_ELSEWHERE = {b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via", b"origin"}


def require_operator(
    allowed: bool, client: tuple[str, int] | None, headers: Iterable[tuple[bytes, bytes]]
) -> None:
    """Checks that a request comes from this machine itself.

    Raises:
        Forbidden: it does not, or the service does not accept such requests.
    """
    if not allowed:
        raise Forbidden("changing what is served is off: set PERSONA_ADMIN=1")
    local = client is not None and _is_loopback(client[0])
    if not local or any(name.lower() in FROM_ELSEWHERE for name, _ in headers):
        raise Forbidden("only this machine itself may change what is served")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
