"""Let text recognizers read the evaluation lines of calibration_data, and count their errors.

    python scripts/read_lines.py build/demo/model.onnx build/demo/model.int8.onnx

The first model carries the alphabet in its metadata. Spaces are not counted: the model was trained
on Chinese and often leaves them out.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

LINES = Path(__file__).resolve().parent.parent / "calibration_data" / "ocr_lines_eval"


def load(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def alphabet(session):
    """Return the characters by class: the CTC blank, those of the metadata, the space."""
    known = session.get_modelmeta().custom_metadata_map["character"]
    return ["", *known.splitlines(), " "]


def read(session, image, characters):
    """Return the text of one line: the best class of each frame, repeats merged, blanks out."""
    (scores,) = session.run(None, {"x": image[np.newaxis]})
    best = scores[0].argmax(axis=1)
    changes = np.flatnonzero(np.diff(best, prepend=-1))
    return "".join(characters[k] for k in best[changes])


def distance(a, b):
    """Return the edit distance of two strings (Levenshtein, 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="the float model first")
    paths = parser.parse_args().models
    images = np.load(LINES.with_suffix(".npz"))["x"]
    truth = [line.replace(" ", "") for line in LINES.with_suffix(".txt").read_text().splitlines()]
    sessions = [load(path) for path in paths]
    characters = alphabet(sessions[0])
    total = sum(map(len, truth))
    for path, session in zip(paths, sessions, strict=True):
        lines = [read(session, image, characters).replace(" ", "") for image in images]
        errors = sum(map(distance, lines, truth))
        right = sum(line == wanted for line, wanted in zip(lines, truth, strict=True))
        print(
            f"{Path(path).name:18} reads {total - errors} of {total} characters "
            f"({1 - errors / total:.1%}), {right} of {len(truth)} lines without an error"
        )


if __name__ == "__main__":
    main()
