"""`safevid ui`: Dagster's web server and daemon with the assets of SafeVid."""

from __future__ import annotations

import os
import socket
import sys

from safevid_core.contracts.errors import SafeVidError
from safevid_dagster.home import PACKAGE


class PortTaken(SafeVidError, OSError):
    """Another program listens on the port."""


def serve(host: str, port: int) -> None:
    """Replace this process by `dagster dev`.

    Raises:
        PortTaken: If another program listens on the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise PortTaken(f"port {port} is taken; try `safevid ui --port {port + 1}`") from None
    import dagster as dg

    from safevid_dagster.liveness import active_runs, end_dead_runs

    with dg.DagsterInstance.get() as instance:
        for line in (*end_dead_runs(instance), *active_runs(instance)):
            print(line, flush=True)
    print(f"SafeVid's assets: http://{host}:{port} (Ctrl-C stops the server)", flush=True)
    served = ["dev", "-h", host, "-p", str(port), "-w", str(PACKAGE / "workspace.yaml")]
    os.execv(sys.executable, [sys.executable, "-m", "dagster", *served])
