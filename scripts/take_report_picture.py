"""Take the picture of a report page that README shows (needs Chromium, and Pillow).

    python scripts/take_report_picture.py build/demo/report.html docs/report.png

The picture is reduced to 128 colours, which a page of text and charts does not show.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: No larger files in the repository than this.
LIMIT = 250_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", type=Path, help="a report as HTML")
    parser.add_argument("picture", type=Path, help="where to write the .png")
    parser.add_argument("--width", type=int, default=1000, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=1330, help="how much of the page to show")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("the picture needs Chromium (apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        place = [f"--window-size={args.width},{args.height}", f"--screenshot={shot}"]
        profile = f"--user-data-dir={folder}/profile"
        command = [browser, *options, profile, *place, args.page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not shot.exists():
            sys.exit(f"{browser} took no picture: {done.stderr.strip()[-300:]}")
        picture = Image.open(shot).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        picture.save(args.picture, optimize=True)
    size = args.picture.stat().st_size
    if size > LIMIT:
        sys.exit(f"{args.picture} has {size} bytes, more than {LIMIT}; show less of the page")
    print(f"wrote {args.picture}, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
