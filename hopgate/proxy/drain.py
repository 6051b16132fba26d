"""The sidecar's preStop hook: `python -m hopgate.proxy.drain`.

Kubernetes runs it when a pod begins to end, beside the app's own end; Envoy itself ends after the app. From then on callers are told
to come no more (`Connection: close`, GOAWAY), while what is under way, and whatever the app still sends, goes on.
"""

from __future__ import annotations

import http.client
import socket
import sys
from pathlib import Path
from typing import Final

from hopgate.kubernetes import sidecar
from hopgate.proxy.errors import ProxyError

TARGET: Final = "/drain_listeners?graceful&inboundonly&skip_exit"
_ANSWER_SECONDS: Final = 5.0


class DrainError(ProxyError):
    """Envoy did not take the order."""

    code = "DrainFailed"


def drain(admin_socket: Path) -> None:
    """Tell Envoy. Raises DrainError."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(admin_socket))
            connection.sendall(f"POST {TARGET} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            status = response.status
            response.close()
    except (OSError, http.client.HTTPException) as error:
        raise DrainError(f"Envoy's admin interface could not be asked: {error}", remedy="see the sidecar's log") from error
    if status != http.HTTPStatus.OK:
        raise DrainError(f"Envoy's admin interface answered {status}", remedy="see the sidecar's log")


def main() -> int:
    """Run as the hook does. Returns its exit code."""
    try:
        drain(Path(sidecar.ADMIN_SOCKET))
    except DrainError as error:
        sys.stderr.write(f"hopgate: {error}; {error.remedy} ({error.code})\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
