"""Make the text-line images of calibration_data, the inputs of ``make demo``.

Needs, besides the dev extra, scikit-image==0.25.2 (a photographed page) and matplotlib==3.11.2
(its copies of the DejaVu and STIX fonts):

    pip install scikit-image==0.25.2 matplotlib==3.11.2
    python scripts/make_calibration_data.py

Writes ocr_lines.npz (calibration), ocr_lines_eval.npz (evaluation; other words, other crops) and
ocr_lines_eval.txt (what each evaluation line says). Each archive has one float32 array ``x`` of
shape (lines, 3, 48, 320), as PP-OCR's recognizer takes it: the line scaled to 48 pixels in height,
values in [-1, 1], zeros to the right of a shorter line.
"""

import argparse
import io
from pathlib import Path

import matplotlib
import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

SEED = 0
HEIGHT, WIDTH = 48, 320

#: Words on skimage/data/page.png, a photograph of a printed page: left, top, right, bottom, text.
#: Taken in turn for calibration and for evaluation.
PAGE = [
    ((4, 10, 147, 35), "Region-based"),
    ((147, 10, 296, 35), "segmentation"),
    ((3, 47, 88, 65), "Let us first"),
    ((87, 48, 163, 65), "determine"),
    ((164, 48, 247, 65), "markers of"),
    ((248, 48, 320, 65), "the coins"),
    ((321, 47, 380, 64), "and the"),
    ((3, 64, 87, 83), "background."),
    ((86, 66, 191, 83), "These markers"),
    ((190, 67, 263, 84), "are pixels"),
    ((262, 66, 346, 83), "that we can"),
    ((345, 64, 380, 82), "label"),
    ((3, 82, 106, 101), "unambiguously"),
    ((107, 84, 180, 102), "as either"),
    ((179, 85, 251, 103), "object or"),
    ((251, 84, 339, 102), "background."),
    ((341, 82, 380, 100), "Here,"),
    ((3, 98, 86, 116), "the markers"),
    ((86, 102, 157, 119), "are found"),
    ((157, 103, 238, 120), "at the two"),
    ((236, 103, 337, 120), "extreme parts"),
    ((337, 99, 380, 118), "of the"),
    ((3, 115, 71, 134), "histogram"),
    ((70, 117, 174, 136), "of grey values:"),
]

#: What documents and screens say, in our words; the first half calibrates, the second evaluates.
TEXT = """
Invoice No. 20417-B
Payment due in 30 days
Total: $1,284.50
Thank you for your order
Platform 7, 14:35
Please keep this door closed
Chapter 3: Rounding
Serial number 8H2-441-C0
Mind the step
Best before 09/2027
Temperature 21.5 C
Press any key to continue
File not found
Room 204, second floor
The quick brown fox
Jumps over the lazy dog
Opening hours 9:00-17:30
Net weight 500 g
Fragile: handle with care
Version 0.1.0 released
Name of the applicant
Signature and date
Lift with both hands
Page 12 of 96
Batteries not included
Do not write below this line
Water, sugar, salt, yeast
Flight QX 318 is boarding
See the table on the left
North Station
Memory usage: 73%
Use only in dry places
For internal use only
All rights reserved
Save changes before exit?
Wet paint
Receipt 0093-5528
Amount received: 42.80 EUR
Keep out of reach of children
Departure at 06:15
Seat 23A, window
Figure 4. Error by layer
Quantity 16, unit price 3.75
Warning: hot surface
Out of order
Expires 31 December 2029
Humidity 48 %
Enter your password
Connection lost
Third door on the right
Pack my box with five
Dozen liquor jugs
Closed on Sundays
Store in a cool place
This side up
Build 4471 passed
Date of birth
Approved by the board
Pull to open
Section 8, paragraph 2
Made from recycled paper
Continue on the next page
Flour, butter, eggs, milk
Gate B14 closes in 10 min
As shown in the appendix
South Harbour
Disk space: 118 GB free
Switch off after use
Draft, not for circulation
Terms and conditions apply
Cancel and go back?
Slow down
""".strip().splitlines()

FONTS = [
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
]


def photographed():
    """Yield (image, text) for the crops of the photographed page."""
    page = Image.open(Path(skimage.__file__).parent / "data" / "page.png").convert("RGB")
    for box, text in PAGE:
        yield page.crop(box), text


def rendered(rng):
    """Yield (image, text): a font, size, pair of colours and JPEG quality drawn for each line."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for i, text in enumerate(TEXT):
        font = ImageFont.truetype(fonts / f"{FONTS[i % len(FONTS)]}.ttf", int(rng.integers(14, 44)))
        paper, ink = rng.integers(200, 256, 3), rng.integers(0, 90, 3)
        if rng.random() < 0.25:
            paper, ink = ink, paper
        left, top, right, bottom = font.getbbox(text)
        margin = font.size // 6
        size = (right - left + 2 * margin, bottom - top + 2 * margin)
        image = Image.new("RGB", size, tuple(map(int, paper)))
        draw = ImageDraw.Draw(image)
        draw.text((margin - left, margin - top), text, tuple(map(int, ink)), font)
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=int(rng.integers(60, 96)))
        yield Image.open(stored).convert("RGB"), text


def prepare(image):
    """Return the model's input for one line: float32 (3, HEIGHT, WIDTH)."""
    width = min(WIDTH, round(image.width * HEIGHT / image.height))
    # The models were trained on images in OpenCV's channel order, blue first.
    pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR))[..., ::-1]
    x = np.zeros((3, HEIGHT, WIDTH), np.float32)
    x[:, :, :width] = pixels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    return x


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent.parent / "calibration_data"
    parser.add_argument("-o", "--out", type=Path, default=default)
    out = parser.parse_args().out
    photos, drawn = list(photographed()), list(rendered(np.random.default_rng(SEED)))
    half = len(drawn) // 2
    calibration, evaluation = photos[::2] + drawn[:half], photos[1::2] + drawn[half:]
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in (("ocr_lines", calibration), ("ocr_lines_eval", evaluation)):
        np.savez_compressed(out / f"{name}.npz", x=np.stack([prepare(im) for im, _ in lines]))
    (out / "ocr_lines_eval.txt").write_text("".join(f"{text}\n" for _, text in evaluation))


if __name__ == "__main__":
    main()
