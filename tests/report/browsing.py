"""A page as a headless browser leaves it."""

import os
import subprocess
import tempfile

import pytest

from saesweep.report.browser import browser_command, find_browser

# Where a browser is promised, as in CI, its absence is a failure and no reason to skip.
needs_browser = pytest.mark.skipif(
    find_browser() is None and not os.environ.get("SAESWEEP_REQUIRE_BROWSER"),
    reason="no Chrome or Chromium on this machine (SAESWEEP_REQUIRE_BROWSER=1 makes this a failure)",
)


def dump_dom(address: str) -> str:
    browser = find_browser()
    assert browser is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [*browser_command(browser, profile), "--virtual-time-budget=30000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, timeout=60, check=True, text=True).stdout
