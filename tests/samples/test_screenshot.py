"""The product page in a real browser: what is on it, and the colour of its stars, pixel by pixel."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections import Counter
from pathlib import Path

import pytest

from .conftest import Start
from .test_bookinfo import ENV, SRC, where

pytestmark = pytest.mark.matrix
Pixel = tuple[int, int, int]
WIDTH, HEIGHT = 1280, 960
# Where the stars of the first review are: right of the reviewer's badge, above the text.
STARS = (590, 455, 720, 485)


def pixels(png: bytes) -> list[list[Pixel]]:
    """Rows of a PNG with 8 bits a channel, not interlaced (PNG 1.2: chunks, filters)."""
    at, data, width, height, channels = 8, b"", 0, 0, 3
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
            assert (depth, interlace) == (8, 0)
            channels = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            data += body
        at += 12 + size
    raw, stride, before, rows = zlib.decompress(data), width * channels, bytearray(width * channels), []
    for y in range(height):
        start = y * (stride + 1)
        kind, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for x in range(stride):
            left = line[x - channels] if x >= channels else 0
            up, corner = before[x], before[x - channels] if x >= channels else 0
            line[x] = (line[x] + (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]) & 0xFF
        rows.append([(line[i], line[i + 1], line[i + 2]) for i in range(0, stride, channels)])
        before = line
    return rows


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium; apt-get install --no-install-recommends chromium fonts-dejavu-core")
    return found


@pytest.mark.parametrize(
    ("version", "colour"),
    [("v1", None), ("v2", (0, 0, 0)), ("v3", (255, 0, 0))],
    ids=["none", "black", "red"],
)
def test_the_stars_have_their_colour(
    start: Start, chromium: str, tmp_path: Path, version: str, colour: Pixel | None
) -> None:
    details, ratings = start(f"{SRC}/details.py", "0"), start(f"{SRC}/ratings.py", "0")
    env = {
        **ENV[f"reviews-{version}"],
        **where(ratings=ratings.http),
        "HOSTNAME": f"reviews-{version}-6b9c-x2v4d",
    }
    reviews = start(f"{SRC}/reviews.py", "0", **env)
    page = start(f"{SRC}/productpage.py", "0", **where(details=details.http, reviews=reviews.http))
    picture = tmp_path / f"{version}.png"
    argv = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
        "--force-color-profile=srgb", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={WIDTH},{HEIGHT}",
        f"--screenshot={picture}", f"http://127.0.0.1:{page.http}/productpage?u=jason",
    ]  # fmt: skip
    subprocess.run(["setpriv", "--pdeathsig", "KILL", *argv], capture_output=True, timeout=120, check=True)
    rows = pixels(picture.read_bytes())
    assert (len(rows[0]), len(rows)) == (WIDTH, HEIGHT)
    left, top, right, bottom = STARS
    stars = Counter(pixel for row in rows[top:bottom] for pixel in row[left:right])
    if colour is None:
        assert not stars[255, 0, 0] and stars[255, 255, 255]
        return
    # Five stars of 20 pixels: over a hundred of their inner pixels have the pure colour.
    assert stars[colour] > 150, stars.most_common(5)
    other: Pixel = (0, 0, 0) if colour == (255, 0, 0) else (255, 0, 0)
    assert not stars[other]
    # It is laid out: a dark bar, a book's cover, two white cards, nothing wider than the window.
    assert rows[30][5] == rows[30][WIDTH - 5] == (31, 42, 55)
    assert rows[200][200][0] > 60 > rows[200][200][1]
    assert rows[420][480] == rows[420][1100] == (255, 255, 255)
