"""Where a server listens: taken before a model is loaded, so that a taken port is told at once."""

from __future__ import annotations

import errno
import socket

from salad.errors import RecipeError


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet.

    Raises:
        RecipeError: the address is taken, or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        unknown = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        remedy = "give a --host of this machine" if unknown else "choose another --port"
        raise RecipeError(f"{host}:{port} can't be listened on ({error.strerror}); {remedy}.") from error
    return listener
