"""`ptq quantize`: a float model in, a verified int8 model out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ptq import __version__
from ptq.cli import options as shared
from ptq.cli import recipes
from ptq.cli.progress import progress_bars
from ptq.errors import ConfigError
from ptq.presets import PRESETS

if TYPE_CHECKING:
    from ptq.config import QuantizeConfig
    from ptq.options import RunOptions, WidthBudget
    from ptq.recipe import Recipe
    from ptq.report import Report

#: What an extracted recipe says of its origin, by key.
_MADE_FROM = {
    "ptq": "another version of ptq",
    "model-sha256": "another float model",
    "data-sha256": "other calibration data",
}


@click.command("quantize", cls=recipes.RecipeCommand)
@shared.MODEL
@recipes.PRESET
@recipes.OPTIONS
@click.option("-o", "--output", type=shared.FILE, help="Where to write.  [MODEL.int8.onnx]")
@click.option(
    "--format",
    type=click.Choice(["qdq", "integer", "both"]),
    default="qdq",
    show_default=True,
    help="QuantizeLinear/DequantizeLinear around float operators, for any runtime; fused integer "
    "operators of onnxruntime, smaller and faster to load; or both (NAME.onnx, NAME.integer.onnx).",
)
@click.option(
    "--scheme",
    type=click.Choice(["static", "dynamic", "weight-only", "auto"]),
    default="static",
    show_default=True,
    help="Scales from calibration; from every run anew; of weights only; or what measures best. "
    "'dynamic' and 'weight-only' need no data.",
)
@click.option(
    "--bits",
    type=shared.BITS,
    metavar="N|W4A4|mixed",
    default=8,
    show_default=True,
    help="Width of the weights: 8 to 1 with --scheme static, 8 and 6 to 2 with weight-only. With "
    "--scheme static also of what layers read, W4A4, or W4A8 if it is 8; kernels are those of 8. "
    "'mixed' gives each layer its own, within --max-size, --mean-bits or --min-sqnr.",
)
@click.option(
    "--edge-bits",
    type=click.IntRange(2, 8),
    default=8,
    show_default=True,
    help="With --scheme static, the least width of the weights of the first and last layers, and "
    "of what these read.",
)
@click.option(
    "--max-size",
    type=shared.SIZE,
    help="With --bits mixed, the largest file: 2MB, 800kB, or bytes.",
)
@click.option(
    "--mean-bits",
    type=click.FloatRange(min=2, max=8),
    help="With --bits mixed, the most bits that a weight has on average.",
)
@click.option(
    "--min-sqnr",
    type=float,
    metavar="DB",
    help="With --bits mixed, the least SQNR of the output, with as few bits as reach it.",
)
@click.option(
    "--block",
    type=click.Choice(["16", "32", "64", "128", "256"]),
    default="32",
    show_default=True,
    help="How many weights share a scale with --scheme weight-only.",
)
@click.option(
    "--place",
    metavar="auto|all|GLOB",
    multiple=True,
    default=("auto",),
    show_default="auto",
    help="Which operators become integer: those whose kernels are measured to be worth it on this "
    "machine, all that the target runs, or those whose names match; may be given several times.",
)
@click.option(
    "--prefer",
    type=click.Choice(["speed", "size"]),
    default="speed",
    show_default=True,
    help="'size' quantizes all that it can, however slow.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="How long to time the result beside the float model; --place auto takes some times more.",
)
@click.option(
    "--min-speedup",
    type=click.FloatRange(min=0, min_open=True),
    help="Write nothing and exit with 3 unless the result is this many times as fast as float.",
)
@click.option(
    "--on-slower",
    type=click.Choice(["write", "keep-float", "fail"]),
    help="What to do if the result is slower than float.  [keep-float with --place auto, "
    "else write]",
)
@click.option(
    "--calib",
    metavar="METHOD",
    default="kl",
    show_default=True,
    help="Range method of the activations; `ptq methods` lists them. Options follow a colon: "
    "percentile:coverage=99.9. kl compares distributions of data: --data-free takes minmax for it. "
    "Where activations have fewer than 8 bits, the default is mse.",
)
@click.option(
    "--qcode-objective",
    type=click.Choice(["mse", "kl", "output"]),
    default="mse",
    show_default=True,
    help="What --calib qcode makes small: each tensor's error, or the network's output error.",
)
@shared.DATA
@click.option(
    "--stats",
    type=shared.FILE,
    help="Statistics that `ptq calibrate` wrote, in place of observing the data again.",
)
@click.option(
    "--weights",
    type=click.Choice(["per-channel", "per-tensor"]),
    default="per-channel",
    show_default=True,
    help="One weight scale for each output channel, or one in all; speed is the same.",
)
@click.option(
    "--weight-method",
    "--weight-range",
    metavar="METHOD",
    default="",
    help="Weight quantizer, with --scheme weight-only block quantizer; `ptq methods` lists them. "
    "Options follow a colon. First and last layers, of another width, have the default.  [minmax; "
    "mse below 8 bits and with weight-only; qcode with --calib qcode]",
)
@click.option(
    "--symmetric/--asymmetric",
    default=False,
    help="Whether activations have their zero point in the middle.  [asymmetric]",
)
@click.option(
    "--symmetric-weights/--asymmetric-weights",
    default=None,
    help="Asymmetric weights are more accurate; dense layers run as fast with them (0.36 of float "
    "time against 0.33), depthwise convolutions 50 to 100 times slower, so that those "
    "stay symmetric.  [symmetric; asymmetric with --scheme static below 8 bits]",
)
@click.option(
    "--rounding",
    metavar="METHOD",
    default="nearest",
    show_default=True,
    help="Each weight to its nearest code; or by gptq or another rounding method of `ptq methods`, "
    "so that the outputs of layers change least on calibration data: for some seconds to minutes "
    "more, free at run time; or as gradient descent learns it, for minutes: layer by layer "
    "(adaround), block by block (brecq), or so with activations quantized at random (qdrop). "
    "Static and weight-only.",
)
@click.option(
    "--bias-correct/--no-bias-correct",
    default=False,
    help="Let biases make up for what the rounding of weights takes from each channel on the "
    "average, measured on calibration data; free at run time. Static and weight-only.  [no]",
)
@click.option(
    "--tweak-norms/--no-tweak-norms",
    default=False,
    help="Let layer norms give their channels the mean and the deviation that they have in the "
    "float network, measured on calibration data; free at run time.  [no]",
)
@click.option(
    "--fine-tune",
    metavar="METHOD",
    default="",
    help="Train the quantized network for --steps towards what the float one puts out for the "
    "calibration data, by a method as `ptq methods` lists them: pact, lsq, qil. For some minutes "
    "more; free at run time. Kept where the outputs are better with it on samples kept out.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="With --fine-tune, for how many steps.",
)
@click.option(
    "--phases",
    type=click.Choice(["direct", "two-stage", "progressive"]),
    default="direct",
    show_default=True,
    help="With --fine-tune, by which widths: at those of the result; weights first, with "
    "activations of 8 bits; or from 8 bits down by halves. The steps are shared out.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=3e-3,
    show_default=True,
    help="With --fine-tune, the highest, as a share of the size of each array.",
)
@shared.LOSS
@click.option(
    "--equalize",
    is_flag=True,
    help="Move scales of channels between neighbouring layers, so that one scale suits all; kept "
    "where the output's error is less with it on the calibration data.",
)
@click.option(
    "--smooth/--no-smooth",
    default=None,
    help="Take outliers out of what dense layers read and into their weights (SmoothQuant), for "
    "transformers; kept where the output's error is less with it on the calibration data.  [where "
    "the outputs fall short of --protect, in models of mostly dense layers]",
)
@click.option(
    "--protect",
    type=click.FloatRange(min=0),
    default=None,
    metavar="DB",
    help="Leave the layers in float whose integers do most to the outputs, as few as bring their "
    "SQNR on calibration data to so many decibels; 0 for none.  [20 with --place auto, but not "
    "where activations have fewer than 8 bits; else 0]",
)
@click.option(
    "--awq",
    is_flag=True,
    help="Multiply the weights of dense layers by the sizes of the channels that they read, and "
    "divide these, before weights are rounded (AWQ), with --scheme weight-only; kept where the "
    "output's error is less with it on the calibration data.",
)
@click.option(
    "--split-gates/--no-split-gates",
    default=None,
    help="Cut what HardSwish shuts out, and compute its gate by a convolution of its own where the "
    "channels behind it need scales of their own; kept where the output's error is less with it "
    "on the calibration data.  [only the cut, where the outputs fall short of --protect]",
)
@click.option(
    "--split-outliers",
    is_flag=True,
    help="Split the channels with outliers of what dense layers read, up to 5 % of them, into "
    "copies that add up to them, for transformers; kept where the output's error is less with it "
    "on the calibration data.",
)
@click.option(
    "--data-free",
    is_flag=True,
    help="There is no data: take ranges, equalization and bias correction from the model's batch "
    "normalizations, and from inputs made up to fit them. Less accurate than a few real samples.",
)
@click.option(
    "--distill",
    is_flag=True,
    help="With --data-free, change the inputs that are made up until all batch normalizations find "
    "what they hold (ZeroQ), so that --rounding and --fine-tune have something to look at.",
)
@click.option(
    "--shape",
    metavar="[NAME=]1x3x224x224",
    multiple=True,
    help="Shape of a dynamic input that --data-free makes up; several times for several.",
)
@shared.PLACEMENT
@click.option(
    "--eval-data", metavar="DATA", help="Other inputs, to measure accuracy on: as --calib-data."
)
@click.option(
    "--labels",
    type=shared.FILE,
    help="The right class of each evaluation row: .npy, .npz, .json, or one a line.",
)
@click.option("--json", type=shared.FILE, help="Write the whole report here.")
@click.option(
    "--report",
    type=shared.FILE,
    metavar="PAGE.html|PAGE.md",
    help="Write it as a page to look at, or as Markdown for a pull request; every layer is then "
    "compared and timed as well.",
)
@shared.OBSERVER
@click.option("--allow-larger", is_flag=True, help="Write the result even if it is larger.")
@shared.FORCE
@click.option("--dry-run", is_flag=True, help="Only say what would be quantized; needs no data.")
def command(model: Path, *, dry_run: bool, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Quantize a float ONNX MODEL to int8, and prove the result.

    The output runs on onnxruntime's integer kernels. Its size, latency and accuracy are measured
    against the float model before it appears.
    """
    context = click.get_current_context()
    found = recipes.found(context)
    config = config_of(given, found)
    if dry_run:
        if given["bits"] == shared.MIXED:
            raise ConfigError("--bits mixed chooses by measuring; leave out --dry-run")
        _foresee(model, config, context)
        return
    from ptq.pipeline import quantize
    from ptq.report.text import result_table

    with progress_bars() as on_progress:
        options = replace(run_options_of(given, found), on_progress=on_progress)
        result = quantize(model, given["calib_data"], config, options=options)
    for notice in (*result.report.notices, *_differences(found.recipe, result.report)):
        click.echo(f"note: {notice}", err=True)
    click.echo(result_table(result.report))


def config_of(given: Mapping[str, Any], found: recipes.Found) -> QuantizeConfig:
    """Return the settings that the options describe, with the overrides of the recipe."""
    bits, activation_bits = shared.widths_of(given["bits"])
    return shared.config_from(
        calib=_calib(given),
        **{n: given[n] for n in ("qcode_objective", "weight_method", "weights")},
        bits=bits,
        activation_bits=activation_bits,
        **{n: given[n] for n in ("symmetric", "op_types", "exclude", "target", "sample_size")},
        **{n: given[n] for n in ("ema_decay", "seed", "allow_larger", "format", "scheme")},
        **{n: given[n] for n in ("place", "prefer", "rounding", "bias_correct", "tweak_norms")},
        **{
            n: given[n]
            for n in ("equalize", "smooth", "protect", "awq", "split_gates", "split_outliers")
        },
        **{
            n: given[n]
            for n in (
                "data_free",
                "distill",
                "shape",
                "fine_tune",
                "steps",
                "phases",
                "learning_rate",
                "loss",
            )
        },
        block=int(given["block"]),
        edge_bits=given["edge_bits"],
        weights_symmetric=_symmetric_weights(given),
        overrides=found.extras.get("override", ()),
    )


def _calib(given: Mapping[str, Any]) -> str:
    """Return the range method of activations; without data and of few bits, the default differs."""
    calib = str(given["calib"])
    if calib != "kl":
        return calib
    if given["data_free"]:
        return "minmax"
    few = shared.widths_of(given["bits"])[1] < shared.widths_of(8)[1]
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source("calib") if context is not None else None
    # of few codes, what is clipped weighs less than what is rounded: kl clips too little
    return "mse" if few and source == ParameterSource.DEFAULT else calib


def _symmetric_weights(given: Mapping[str, Any]) -> bool:
    """Return whether weights have zero point 0: few bits are too few to leave half of them."""
    said = given["symmetric_weights"]
    bits = given["bits"]
    few = given["scheme"] == "static" and (bits == shared.MIXED or shared.widths_of(bits)[0] < 8)
    return not few if said is None else bool(said)


def run_options_of(given: Mapping[str, Any], found: recipes.Found) -> RunOptions:
    """Return what the options say about how the run goes, with the placement of the recipe."""
    from ptq.options import RunOptions

    return RunOptions(
        output=given["output"],
        report=given["json"],
        page=given["report"],
        force=given["force"],
        statistics=given["stats"],
        samples=given["samples"],
        evaluation=given["eval_data"],
        labels=given["labels"],
        images=shared.images_from(given["image_flags"], given["image_config"]),
        threads=given["threads"],
        seconds=given["seconds"],
        min_speedup=given["min_speedup"],
        on_slower=given["on_slower"],
        placement=found.extras.get("placement"),
        widths=_widths(given),
    )


def _widths(given: Mapping[str, Any]) -> WidthBudget | None:
    """Return what weights may take, if widths are to be chosen."""
    from ptq.options import WidthBudget

    limits = {n: given[n] for n in ("max_size", "mean_bits", "min_sqnr")}
    if given["bits"] == shared.MIXED:
        return WidthBudget(
            size_bytes=limits["max_size"],
            mean_bits=limits["mean_bits"],
            sqnr_db=limits["min_sqnr"],
        )
    for name, value in limits.items():
        if value is not None:
            raise ConfigError(f"--{name.replace('_', '-')} needs --bits mixed; leave it out")
    return None


def _differences(recipe: Recipe | None, report: Report) -> Iterator[str]:
    """Yield what an extracted recipe was made from that this run was not."""
    made_from = recipe.made_from if recipe is not None else {}
    data = report.calibration.sha256 if report.calibration is not None else None
    here = {"ptq": __version__, "model-sha256": report.input.sha256, "data-sha256": data}
    for key, value in here.items():
        if value is not None and made_from.get(key, value) != value:
            what = _MADE_FROM[key]
            yield f"the recipe was extracted from a model made with {what}; results differ"


def _foresee(model: Path, config: QuantizeConfig, context: click.Context) -> None:
    """Print what would become of the model, with these settings and with each preset."""
    from ptq.files import write_atomically
    from ptq.inspection import foresee
    from ptq.places import require_free, require_text
    from ptq.report.dry_run import dry_run_text

    given = context.params
    require_text([model, given["json"]])
    require_free([given["json"]], model, [], force=given["force"])
    found = foresee(model, config, {name: _with_preset(context, name) for name in PRESETS})
    if given["json"] is not None:
        write_atomically(given["json"], shared.json_of(found).encode())
    click.echo(dry_run_text(found))


def _with_preset(context: click.Context, preset: str) -> QuantizeConfig | ConfigError:
    try:
        config = config_of(recipes.with_preset(context, preset), recipes.found(context))
        config.require_known()
    except ConfigError as error:
        return error
    return config
