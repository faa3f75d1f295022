"""The README's pictures, from a real run: the asset graph in the UI and the scorecard.

Run with ``make pictures`` after ``make demo``; needs a Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from safevid_core.settings import load_settings

PROJECT = Path(__file__).resolve().parent.parent
OUT = PROJECT / "docs" / "pictures"
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def picture_scorecard(browser: Browser, report: Path) -> None:
    """The top of the report."""
    page = browser.new_page(viewport={"width": 1280, "height": 1500})
    page.goto(report.as_uri())
    page.screenshot(path=OUT / "scorecard.png")


def picture_asset_graph(browser: Browser) -> None:
    """Start the UI, open every group of its lineage page, and end it with all of its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "safevid_dagster.cli", "ui", "--port", str(port)],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/server_info")
        page = browser.new_page(viewport={"width": 2500, "height": 2700})
        page.goto(f"http://127.0.0.1:{port}/asset-groups")
        page.get_by_text("evaluation").first.wait_for(timeout=60_000)
        page.wait_for_timeout(5_000)
        page.keyboard.press("Alt+KeyE")
        page.wait_for_timeout(8_000)
        clip = {"x": 555, "y": 250, "width": 1945, "height": 2250}
        page.screenshot(path=OUT / "asset_graph.png", clip=clip)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        time.sleep(3)
        with contextlib.suppress(ProcessLookupError):
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
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("safevid: no Chromium was found. Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        picture_scorecard(browser, report)
        picture_asset_graph(browser)


if __name__ == "__main__":
    main()
