"""The README's pictures, from a real run: the asset graph in the UI and the scorecard.

Run with ``make pictures`` after ``make demo``; needs a Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from safevid_core.settings import load_settings

PROJECT = Path(__file__).resolve().parent.parent
OUT = PROJECT / "docs" / "pictures"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def screenshot(url: str, picture: Path, width: int, height: int, wait_s: int = 2) -> None:
    """Render a page and write it as PNG."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("safevid: no Chromium was found. Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                *QUIET,
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--timeout={wait_s * 1000}",
                f"--screenshot={picture}",
                url,
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    print(picture.relative_to(PROJECT))


def asset_graph(picture: Path) -> None:
    """Start the UI, picture its lineage page, and end it with all of its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "safevid_dagster.launch", "ui", "--port", str(port)],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/server_info")
        screenshot(f"http://127.0.0.1:{port}/asset-groups", picture, 1900, 900, wait_s=40)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        time.sleep(3)
        os.killpg(server.pid, signal.SIGKILL)


def wait_until_up(url: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise SystemExit(f"safevid: the UI did not answer at {url} within {seconds:.0f} s")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    report = load_settings().root.absolute() / "reports" / "scorecard.html"
    if not report.is_file():
        raise SystemExit(f"safevid: {report} does not exist; run `make demo` first")
    screenshot(report.as_uri(), OUT / "scorecard.png", 1280, 1500)
    asset_graph(OUT / "asset_graph.png")


if __name__ == "__main__":
    main()
