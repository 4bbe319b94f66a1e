"""PNG files of the report's plots, drawn by a headless Chrome or Chromium: what draws the page draws the pictures."""

from __future__ import annotations

import base64
import html
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
BROWSER_SECONDS = 120
"""How long the browser may take for all pictures."""


def find_browser() -> str | None:
    """Return the program of a Chrome, Chromium or Edge; `$SAESWEEP_BROWSER` names another one."""
    named = os.environ.get("SAESWEEP_BROWSER")
    if named:
        return shutil.which(named)
    found = (shutil.which(name) for name in (*_NAMES, *_PLACES))
    return next((path for path in found if path is not None), None)


def browser_command(browser: str, profile: str) -> list[str]:
    """Return a headless browser that touches neither the user's profile nor the network."""
    command = [
        browser,
        "--headless",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # its sandbox refuses to start for root, as in most containers
    return command


def write_pngs(page: Path, folder: Path, browser: str) -> list[Path]:
    """Write one PNG per plot of a report page.

    Args:
        page: The report.
        folder: Where they go; made when missing.
        browser: The program to use.

    Returns:
        The files, in the page's order; none where the browser failed or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="saesweep-browser-", ignore_cleanup_errors=True) as profile:
        command = [
            *browser_command(browser, profile),
            "--virtual-time-budget=60000",
            "--window-size=1160,1200",
            "--dump-dom",
            f"{page.resolve().as_uri()}#png",
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=BROWSER_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    pattern = r'<pre class="png" data-name="([\w-]+)">data:image/png;base64,([^<]+)</pre>'
    for name, data in re.findall(pattern, html.unescape(done.stdout.decode("utf-8", "replace"))):
        file = folder / f"{name}.png"
        file.write_bytes(base64.b64decode(data))
        written.append(file)
    return written
