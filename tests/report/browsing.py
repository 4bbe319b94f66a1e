"""A page as a headless browser leaves it."""

import subprocess
import tempfile

from saesweep.report.browser import browser_command, find_browser


def dump_dom(address: str) -> str:
    browser = find_browser()
    assert browser is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [*browser_command(browser, profile), "--virtual-time-budget=30000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, timeout=60, check=True, text=True).stdout
