"""`examples/ci`, run as a CI system and pre-commit run it: as plain shell, with the real `ptq`."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support.cli import ROOT, environment

CI = ROOT / "examples" / "ci"
WORKFLOW = CI / ".github" / "workflows" / "models.yml"
HOOKS = CI / ".pre-commit-config.yaml"
FILES = [path for path in sorted(CI.rglob("*")) if path.is_file()]

#: Ranges that cut off a tenth of the values.
WRECKED = 'calib = "percentile:coverage=90"'


@pytest.fixture
def project(tmp_path, digits, monkeypatch):
    """A project as the README says, with the small network; the current folder."""
    for folder in ("ci", "models", "data", "bin"):
        (tmp_path / folder).mkdir()
    for name in ("check.sh", "quantize.sh"):
        shutil.copy(CI / name, tmp_path / "ci")
    shutil.copy(CI / "ptq.toml", tmp_path)
    for source, to in (
        (digits.model, "models/digits.onnx"),
        (digits.calibration, "data/digits_calib.npz"),
        (digits.evaluation, "data/digits_eval.npz"),
    ):
        shutil.copy(source, tmp_path / to)
    ptq = tmp_path / "bin" / "ptq"
    ptq.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ptq "$@"\n')
    ptq.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(command, **variables):
    """Run a line of shell with `ptq` on the PATH."""
    path = os.pathsep.join([str(Path("bin").resolve()), os.environ["PATH"]])
    variables = {"PTQ_CHECK_THREADS": "1", "PTQ_CHECK_SAMPLES": "60", **variables}
    return subprocess.run(
        ["sh", "-c", command],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(PATH=path, **variables),
    )


def runs(workflow):
    """Return the lines of shell in a workflow."""
    return re.findall(r"^ +run: (.+)$", workflow.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_steps_of_the_workflow_hold_a_good_model_and_fail_for_a_bad_one(project):
    install, quantize, check = runs(WORKFLOW)
    assert install.startswith("pip install ")

    # the first time: there is no baseline to hold
    assert shell(quantize).returncode == 0
    missing = shell(check)
    assert missing.returncode == 2
    assert "--update-baseline writes one" in missing.stderr
    assert shell(check, CHECK_FLAGS="--update-baseline").returncode == 0
    assert set(json.loads((project / "baseline.json").read_bytes())["models"]) == {
        "digits.int8.onnx"
    }

    # every time
    summary = project / "summary.md"
    done = shell(check, GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    assert summary.read_text(encoding="utf-8").startswith("**ptq check passed**")
    assert not ET.parse(project / "reports/digits.xml").getroot().findall("*//failure")

    # somebody changes the recipe
    recipe = project / "ptq.toml"
    recipe.write_text(recipe.read_text().replace('calib = "kl"', WRECKED))
    assert shell(quantize).returncode == 0
    done = shell(check, GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 3
    assert "top-1 accuracy was " in done.stderr
    assert "layers at fault, the worst first" in done.stdout
    assert "**ptq check failed**" in summary.read_text(encoding="utf-8")
    assert ET.parse(project / "reports/digits.xml").getroot().findall("*//failure")

    # the hook, with the file that is committed
    [entry] = re.findall(r"^ +entry: (.+)$", HOOKS.read_text(), re.MULTILINE)
    [pattern] = re.findall(r"^ +files: (.+)$", HOOKS.read_text(), re.MULTILINE)
    assert re.search(pattern, "models/digits.int8.onnx")
    assert not re.search(pattern, "models/digits.onnx")
    assert shell(f"{entry} models/digits.int8.onnx").returncode == 3


FAKE = """\
#!/bin/sh
case $3 in *error*) exit 1 ;; *usage*) exit 2 ;; *missed*) exit 3 ;; esac
"""


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ("good", 0),
        ("good missed good", 3),
        ("missed error missed", 1),
        ("missed usage error", 2),
        ("error missed", 1),
    ],
)
def test_all_models_are_checked_and_an_error_counts_more_than_a_miss(project, names, code):
    (project / "bin" / "ptq").write_text(FAKE)
    done = shell("sh ci/check.sh " + " ".join(f"models/{n}.int8.onnx" for n in names.split()))
    assert done.returncode == code
    assert done.stdout.splitlines() == [f"== models/{n}.int8.onnx" for n in names.split()]


@pytest.mark.parametrize("script", ["check.sh", "quantize.sh"])
def test_a_script_is_plain_posix_shell(script):
    assert subprocess.run(["sh", "-n", CI / script], check=False).returncode == 0
    shellcheck = shutil.which("shellcheck")
    if shellcheck is not None:
        assert subprocess.run([shellcheck, "-s", "sh", CI / script], check=False).returncode == 0


@pytest.mark.parametrize("path", [WORKFLOW, HOOKS], ids=lambda path: path.name)
def test_yaml_is_indented_by_twos_and_every_line_is_a_key_an_item_or_a_comment(path):
    depth = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        assert line == line.rstrip()
        assert "\t" not in line
        indent = len(line) - len(line.lstrip())
        assert indent % 2 == 0
        assert indent <= depth + 4, "deeper than a key in a list item"
        depth = indent
        assert re.fullmatch(r" *(#.*|(- )?[\w-]+:( .+)?|- \S+)", line), line


def test_the_readme_names_every_file():
    readme = (CI / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        if path.name != "README.md":
            assert str(path.relative_to(CI)) in readme
