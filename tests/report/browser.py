"""Opens pages in headless Chromium, each in a frame of its own, and says what it saw."""

import html
import json
import pathlib
import re
import shutil
import subprocess

import pytest

from tests.waiting import LIMIT_SECS

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
    "--hide-scrollbars",
    # Whatever asks for an address gets none; the log still has the question.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--dump-dom",
)
# Measures every frame when it is there: the width of its content, and what each section's name is.
_SCRIPT = """
addEventListener('load', () => {
  document.body.dataset.seen = JSON.stringify([...document.querySelectorAll('iframe')].map(f => {
    const d = f.contentDocument;
    return {width: d.documentElement.scrollWidth, height: d.documentElement.scrollHeight,
      sections: [...d.querySelectorAll('section')].map(s => s.id),
      tables: [...d.querySelectorAll('.scroll')].filter(b => b.clientWidth).map(b => ({
        wide: b.scrollWidth > b.clientWidth,
        cue: b.previousElementSibling?.matches('.cue')
          && f.contentWindow.getComputedStyle(b.previousElementSibling).display != 'none'})),
      charts: d.querySelectorAll('svg.chart').length, scripts: d.scripts.length,
      background: f.contentWindow.getComputedStyle(d.body).backgroundColor};
  }));
});
"""


def look(
    folder: pathlib.Path, pages: list[str], width: int, dark: bool = False
) -> tuple[list[dict], list[str], list[str]]:
    """(what each page looks like at that width, console messages, addresses asked for).

    Skips the test if there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    browser = browser or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(page)}">'
        "</iframe>"
        for page in pages
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!doctype html><body>{frames}<script>{_SCRIPT}</script>")
    flags = [*_FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder}/net.json"]
    if dark:
        flags.append("--blink-settings=preferredColorScheme=0")
    ran = subprocess.run(
        [browser, *flags, wrapper.as_uri()], capture_output=True, text=True, timeout=LIMIT_SECS
    )
    found = re.search(r'data-seen="([^"]*)"', ran.stdout)
    assert found, ran.stderr[-2000:]
    console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    addresses = re.findall(r'"url":"([^"]*)"', (folder / "net.json").read_text())
    return json.loads(html.unescape(found.group(1))), console, sorted(set(addresses))
