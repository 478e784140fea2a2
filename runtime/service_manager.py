"""Tells systemd how the server is, where it was started by a unit with Type=notify."""

import os
import socket


def tell(state: str) -> None:
    """Say `state`, such as READY=1, to whoever set NOTIFY_SOCKET; nobody did, or nobody listens: nothing happens.

    The protocol is sd_notify(3)'s: one datagram to a Unix socket, of the abstract kind if its name begins with @.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.sendto(state.encode(), address)
        except OSError:
            pass
