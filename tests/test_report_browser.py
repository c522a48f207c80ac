"""The report in a real browser: it draws, fits a phone, runs nothing hostile, fetches nothing."""

import base64
import hashlib
import json
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from test_report_study import write_study

from demur.report import text, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip
DARK = "--blink-settings=preferredColorScheme=0"

# Runs in the page, in a frame 390 px wide: every element beyond the right edge that is not inside a
# part which scrolls by itself; the plots; and whether hostile text ran.
PROBE = """
window.addEventListener("load", function () {
  document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  var select = document.getElementById("pick-curve");
  select.value = "ece";
  select.dispatchEvent(new Event("change"));
  var wide = [];
  document.querySelectorAll("body *").forEach(function (element) {
    if (element.closest(".scroll, svg, .plot, .skip, noscript, script")) { return; }
    var right = element.getBoundingClientRect().right;
    if (right > window.innerWidth + 1) { wide.push(element.className || element.tagName); }
  });
  document.querySelectorAll(".plot").forEach(function (plot) {
    var svg = plot.querySelector("svg.main-svg");
    if (!svg || svg.getBoundingClientRect().width > plot.clientWidth + 1) { wide.push(plot.id); }
  });
  var says = {
    width: window.innerWidth, scroll: document.documentElement.scrollWidth, wide: wide.join(" "),
    plots: document.querySelectorAll(".plot").length,
    drawn: document.querySelectorAll(".plot .main-svg:first-child").length,
    lines: document.querySelectorAll("#plot-curves .scatterlayer .trace").length,
    marks: document.querySelectorAll("#plot-plane .scatterlayer .trace").length,
    hacked: document.documentElement.dataset.hacked || "no",
    hostile: document.body.textContent.split("onload=").length - 1,
    ink: getComputedStyle(document.body).color,
    axis: getComputedStyle(document.querySelector("#plot-risk .xtick text")).fill,
    pressed: "", picked: document.getElementById("plot-curves").data[0].y[0],
    hint: document.getElementById("says-curve").textContent
  };
  var button = document.querySelector(".legend button:last-child");
  button.click();
  says.hidden = document.querySelectorAll("#plot-plane .scatterlayer .trace").length;
  says.pressed = button.getAttribute("aria-pressed");
  Object.keys(says).forEach(function (key) { document.body.dataset[key] = says[key]; });
});
"""


def browse(page: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    profile = page.parent / "profile"
    return subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *extra, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )


def probed(report: Path) -> Path:
    """A copy with the probe added, and its hash in the page's policy: else it would not run."""
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    html = report.read_text(encoding="utf-8")
    html = html.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    head, tail = html.rsplit("</body>", 1)
    copy = report.with_name("probed.html")
    copy.write_text(f"{head}<script>{PROBE}</script></body>{tail}", encoding="utf-8")
    return copy


def said(dom: str) -> dict[str, str]:
    body = re.search(r"<body([^>]*)>", dom)
    assert body is not None, dom[:500]
    return dict(re.findall(r'data-([a-z]+)="([^"]*)"', body.group(1)))


def pixel(png: bytes) -> tuple[int, int, int, int, int]:
    """Width, height and the top left pixel: that one needs no filter undone in its first row."""
    width, height = struct.unpack(">II", png[16:24])
    packed = b""
    at = 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += 12 + length
    red, green, blue = zlib.decompress(packed)[1:4]
    return width, height, red, green, blue


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_study(tmp_path_factory.mktemp("browser"), hostile=True, seeds=2))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_draws_and_fits_a_phone_in_either_scheme(report: Path, dark: bool) -> None:
    page = probed(report)
    frame = page.with_name("frame.html")
    # A headless window is never narrower than some 500 px, so the phone is a frame.
    frame.write_text(
        '<!DOCTYPE html><body style="margin:0"><iframe src="probed.html" '
        'style="width:390px;height:844px;border:0"></iframe>'
        "<script>window.onload = function () {"
        'var inner = document.querySelector("iframe").contentDocument.body.dataset;'
        "Object.assign(document.body.dataset, inner);};</script></body>"
    )
    shot = report.with_name("phone.png")
    result = browse(
        frame, "--allow-file-access-from-files", "--dump-dom", f"--screenshot={shot}",
        "--window-size=390,844", *([DARK] if dark else []),
    )  # fmt: skip
    found = re.search(r'id="data-curves">(.*?)</script>', report.read_text(encoding="utf-8"))
    assert found is not None
    picked = json.loads(found.group(1))
    told = said(result.stdout)
    assert told["width"] == "390"
    assert told["wide"] == "" and int(told["scroll"]) <= 390
    assert told["plots"] == told["drawn"] == str(9 + 4)
    assert int(told["lines"]) == 8 * (2 + 1)  # two seeds and their mean, after picking a metric
    assert int(told["hidden"]) == int(told["marks"]) - 2  # an arm's mark and its seeds
    assert told["pressed"] == "false"
    assert told["picked"] == str(picked["ece"]["data"][0]["y"][0])
    assert told["hint"] == text.metric("ece").meaning
    assert int(told["hostile"]) > 20 and told["hacked"] == "no"
    assert told["ink"] == ("rgb(230, 228, 223)" if dark else "rgb(29, 33, 38)")
    assert told["axis"] == ("rgb(163, 167, 173)" if dark else "rgb(92, 99, 107)")
    assert pixel(shot.read_bytes()) == (390, 844, *((21, 24, 28) if dark else (253, 252, 250)))
    assert "CONSOLE" not in result.stderr, result.stderr
