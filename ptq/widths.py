"""Give each layer a width of its own, by measured damage and integer programming.

The kernels of every width are those of int8, so that width is a matter of size and of accuracy, not
of speed; what is in float and what in integers is for the placement to say. There is no width of 16
bits: onnxruntime's CPU kernels multiply no such codes, and what it makes of them is float.

Reference: Hubara et al., "Accurate Post Training Quantization With Small Calibration Sets", ICML
2021, section 3.4. Departs from it by measuring on samples that no code was fitted to, for otherwise
the damage that is added up is far too small; and by measuring the assembled model, where its
accuracy is what was asked for.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ptq.config import Override, QuantizeConfig
from ptq.data import Feed
from ptq.errors import ConfigError, ThresholdError
from ptq.graph.fed_weights import with_weights_fed
from ptq.graph.load import model_size
from ptq.graph.passes.edit import constant
from ptq.graph.site import Sites
from ptq.inputs import Inputs
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F32
from ptq.numerics.blocks import BlockFormat
from ptq.numerics.qtype import QType
from ptq.options import RunOptions, WidthBudget
from ptq.overrides import Overrides
from ptq.progress import Stages
from ptq.ranging import Part, Split
from ptq.report import Report
from ptq.rounders import Rounder
from ptq.rounders.gptq import GptqRounder
from ptq.rounding import passes, round_at_widths
from ptq.schemes import SchemeWriter
from ptq.search.allocate import Allocation, least_cost, least_damage
from ptq.search.menu import Form, Layer, forms_of, layer_of, measured_of
from ptq.search.weight_trials import WeightTrials
from ptq.source import Source
from ptq.trial import Trial
from ptq.weights import parse_method
from ptq.work import Work

#: What a layer of the weight-only scheme may have, and the widths of which damage is measured.
_BLOCK_MENU, _BLOCK_MEASURED = (8, 6, 5, 4, 3, 2), (4, 3, 2)

#: Samples on which each trial is measured, and each assembled model.
_TRIAL_SAMPLES, _CHECK_SAMPLES = 8, 16

#: Samples that codes are fitted to.
_FITTED_SAMPLES = 32

#: How often widths are chosen anew because the assembled model was not as good as predicted.
_REPAIRS = 4


def choose_widths(
    source: Source, inputs: Inputs, config: QuantizeConfig, stages: Stages, options: RunOptions
) -> tuple[QuantizeConfig, tuple[str, ...]]:
    """Return the settings with an override for each layer of fewer than 8 bits, and what to say.

    Args:
        source: the prepared model.
        inputs: the data; one part of the calibration samples is what codes are fitted to, another
            what damage is measured on.
        config: the settings, for 8 bits.
        stages: told of what takes time.
        options: the budget, and how many threads.

    Raises:
        ConfigError: there is no calibration data, the scheme has weights of 8 bits only, or nothing
            keeps within the budget.
    """
    budget = options.widths
    assert budget is not None
    if config.scheme not in ("static", "weight-only") or config.bits != 8:
        raise ConfigError(
            "--bits mixed is of --scheme static and weight-only; leave one of them out"
        )
    if inputs.calibration is None:
        raise ConfigError("--bits mixed runs the network; give --calib-data")
    with TemporaryDirectory(prefix="ptq-") as folder:
        search = WidthSearch if config.scheme == "static" else BlockWidths
        found = search(source, inputs, config, stages, options.threads, Path(folder))
        chosen, line = found.within(budget)
    return chosen, (line,)


def require_fits(report: Report, budget: WidthBudget) -> None:
    """Refuse a result that is larger than asked for: what stays in float takes 4 bytes a weight.

    Raises:
        ThresholdError: it is.
    """
    size = sum(output.size_bytes for output in report.outputs[:1])
    if budget.size_bytes is not None and size > budget.size_bytes:
        raise ThresholdError(
            f"the model has {size} bytes, more than --max-size {budget.size_bytes}; give "
            "--place all, so that no layer stays in float, or --format integer"
        )


class WidthSearch:
    """The search under way, of the static scheme."""

    def __init__(
        self,
        source: Source,
        inputs: Inputs,
        config: QuantizeConfig,
        stages: Stages,
        threads: int,
        folder: Path,
    ) -> None:
        data = inputs.calibration
        assert data is not None
        split = Split.of(len(data))
        fitted = Part(data, split.solved_from) if split.solved_from else data
        self.source, self.config, self.stages, self.threads = source, config, stages, threads
        self.inputs = replace(inputs, calibration=fitted)
        self.kept_out = list(islice(iter(Part(data, split.chosen_on)), _CHECK_SAMPLES))
        self.path = folder / "quantized.onnx"
        self._begin()
        self.size_bytes = model_size(self.path)

    def _begin(self) -> None:
        """Write the model with 8 bits everywhere."""
        self.work = Work(self.source, self.inputs, self.config, self.stages, self.threads)
        self.version = self.work.write(self.path, self.config.formats[0])
        self.total = sum(self.version.emitted.widths.values())

    def within(self, budget: WidthBudget) -> tuple[QuantizeConfig, str]:
        """Return the settings that keep to a budget, and a line on them."""
        if budget.sqnr_db is not None:
            return self._accurate(budget.sqnr_db)
        if budget.size_bytes is not None:
            chosen = self._small(budget.size_bytes)
        else:
            assert budget.mean_bits is not None
            free = sum(layer.size for layer in self.layers)
            in_bits = [layer.in_bits(coded=self._is_coded) for layer in self.layers]
            spare = budget.mean_bits * self.total - 8.0 * (self.total - free)
            chosen = self._allocated(in_bits, spare, "--mean-bits", budget.mean_bits)
        return self._settings(chosen), self._line(chosen)

    def _small(self, size_bytes: int) -> Allocation:
        """Choose the least damage within a size; the file, which has more than weights, says."""
        free = sum(layer.size for layer in self.layers)
        spare = size_bytes - (self.size_bytes - free)
        while True:
            chosen = self._allocated(self.layers, spare, "--max-size", size_bytes)
            self._writer(self._settings(chosen)).write(self.path, self.config.formats[0])
            excess = model_size(self.path) - size_bytes
            if excess <= 0:
                return chosen
            spare -= excess

    def _allocated(
        self, layers: Sequence[Layer], spare: float, option: str, asked: float
    ) -> Allocation:
        try:
            return least_damage([layer.choices for layer in layers], spare)
        except ConfigError as error:
            least = min(form.bits for form in self.forms)
            width = f"{least} bits"
            if self._is_coded:
                width = f"--weight-method {self.config.weight_method} with {width}, coded,"
            static = f", or give --edge-bits {least}" if self.config.scheme == "static" else ""
            raise ConfigError(
                f"{option} {asked:g} is less than {width} for every layer that may have them "
                f"give, beside those that are held at a width; allow more{static}"
            ) from error

    def _accurate(self, sqnr_db: float) -> tuple[QuantizeConfig, str]:
        """Choose the smallest model that reaches a figure, measured on samples kept out.

        The damage that is added up is a model; so each choice is assembled and measured, and the
        next one allowed as much less as it was worse.
        """
        limit = 10.0 ** (-sqnr_db / 10.0)
        base = self._measured(self.config)
        if base > limit:
            raise ConfigError(
                f"--min-sqnr {sqnr_db:g} is more than 8 bits in every layer reach, "
                f"{-10 * math.log10(base):.1f} dB; give --rounding gptq --bias-correct, or find "
                "with `ptq sensitivity --min-sqnr` what to leave in float"
            )
        widest = Allocation(tuple(layer.choices[0] for layer in self.layers))
        allowed = limit - base
        for _ in range(_REPAIRS):
            chosen = self._cheapest(allowed) or widest
            error = self._measured(self._settings(chosen))
            if error <= limit or chosen.widths == widest.widths:
                break
            allowed *= 0.9 * (limit - base) / (error - base)
        else:
            chosen, error = widest, base
        more = f"; {-10 * math.log10(error):.1f} dB on {len(self.kept_out)} samples kept out"
        return self._settings(chosen), self._line(chosen) + more

    def _cheapest(self, allowed: float) -> Allocation | None:
        """Return the smallest choice within a damage; ``None`` if there is none."""
        try:
            layers = [r.in_coded_bytes() if self._is_coded else r for r in self.layers]
            return least_cost([layer.choices for layer in layers], allowed)
        except ConfigError:
            return None

    def _measured(self, config: QuantizeConfig) -> float:
        """Return the error of a model with all that it is given, on samples kept out."""
        self._write(config)
        return Trial(self.kept_out, self.source).error(self.path.read_bytes())

    def _write(self, config: QuantizeConfig) -> None:
        """Write the model with other overrides and all else that it is given."""
        work = self._quantized(config)
        version = work.write(self.path, "qdq")
        if config.refines:
            work.refine(self.path, "qdq", version)

    def _writer(self, config: QuantizeConfig) -> Work | SchemeWriter:
        """Return what writes the model with other overrides."""
        return self._quantized(config)

    def _quantized(self, config: QuantizeConfig) -> Work:
        """Return a quantization with other overrides, of the same statistics."""
        work = Work(self.source, self.inputs, config, self.stages, self.threads)
        work.calibration, work.range_search = self.work.calibration, self.work.range_search
        return work

    # -- what layers may be -----------------------------------------------------------------------

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The weights that may have fewer bits, with the damage and the bytes of each width."""
        nearest = {form: self._tensors(form) for form in self.forms}
        fitted = self._fitted(nearest)
        free = self._free(nearest)
        values = {v.name or "": constant(v) for s in self._sites.sites if (v := s.weight)}
        floats = {n: np.asarray(array, np.float32) for n, array in values.items() if n in free}
        fed = with_weights_fed(self.source.model, list(floats))
        feeds = self.kept_out[:_TRIAL_SAMPLES]
        trials = WeightTrials(fed, floats, feeds, self.source.folder, threads=self.threads)
        with self.stages.stage("widths", len(floats) * len(fitted)) as step:
            found = []
            for name, w in floats.items():
                measured = {}
                for form, tensors in fitted.items():
                    measured[form] = trials.error({name: tensors[name].dequantize()})
                    step()
                ways = {form: nearest[form][name] for form in self.forms}
                found.append(layer_of(name, w, ways, measured))
        return tuple(found)

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """What a layer may have."""
        return forms_of(parse_method(self.config.weight_method or "mse"))

    @property
    def _is_coded(self) -> bool:
        """Whether what counts is the size of a compressed file: only there, zeros spare any."""
        return any(form.method for form in self.forms)

    def _tensors(self, form: Form) -> Mapping[str, QTensor]:
        """Return the weights at a width, rounded to nearest."""
        return self.work.at(form.bits, form.method).emitted(self.version)[1].tensors

    def _fitted(
        self, nearest: Mapping[Form, Mapping[str, QTensor]]
    ) -> Mapping[Form, Mapping[str, QTensor]]:
        """Return the weights at the widths that are measured, rounded as the settings say."""
        written = {form: nearest[form] for form in measured_of(self.forms)}
        if self.config.rounding == "nearest":
            return written
        quantized, _ = self.work.emitted(self.version)
        sites = self._sites
        assert self.inputs.calibration is not None
        feeds: list[Feed] = list(islice(iter(self.inputs.calibration), _FITTED_SAMPLES))
        with self.stages.stage("round", passes(sites) * len(feeds)) as step:
            rounded = round_at_widths(
                sites, quantized, written, self._method(), feeds, self.source.folder,
                threads=self.threads, on_feed=step,
            )  # fmt: skip
        return {form: {**written[form], **rounded[form]} for form in written}

    def _method(self) -> Rounder:
        """Return how weights are rounded; in place of what is learned, which takes long, GPTQ."""
        method = self.config.rounding_method()
        return method if isinstance(method, Rounder) else GptqRounder()

    def _free(self, nearest: Mapping[Form, Mapping[str, QTensor]]) -> set[str]:
        """Return the weights that no override and no edge holds at a width."""
        return {
            name
            for name in nearest[self.forms[0]]
            if all(tensors[name].bits == form.bits for form, tensors in nearest.items())
        }

    @cached_property
    def _sites(self) -> Sites:
        return self.work.integer_sites(self.version)

    # -- what was chosen --------------------------------------------------------------------------

    def _settings(self, chosen: Allocation) -> QuantizeConfig:
        found = tuple(
            Override(
                match=glob.escape(layer.name), bits=made.width, weight_method=made.method or None
            )
            for layer, made in zip(self.layers, chosen.choices, strict=True)
            if made.width != 8
        )
        return msgspec.structs.replace(self.config, overrides=(*found, *self.config.overrides))

    def _line(self, chosen: Allocation) -> str:
        made = [Form(choice.width, choice.method) for choice in chosen.choices]
        counts = [(form, made.count(form)) for form in self.forms]
        listed = ", ".join(
            f"{count} of {form.bits}{f' ({form.method})' if form.method else ''}"
            for form, count in counts
            if count
        )
        return (
            f"widths were chosen for {len(self.layers)} layers, by what each does to the output on "
            f"{len(self.kept_out[:_TRIAL_SAMPLES])} samples kept out: {listed} bits"
        )


class BlockWidths(WidthSearch):
    """The search under way, of the weight-only scheme.

    The damage is that of weights rounded to nearest: of another rounding it is less in all layers.
    """

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """What a layer may have: scales of blocks make 2 bits of use."""
        return tuple(Form(bits) for bits in _BLOCK_MENU)

    def _begin(self) -> None:
        self.found: dict[str, tuple[F32, BlockFormat]] = {}
        writer = self._writer(self.config)
        writer.write(self.path, self.config.formats[0])
        self.found = writer.written()
        self.total = sum(array.size for array, _ in self.found.values())

    def _write(self, config: QuantizeConfig) -> None:
        writer, form = self._writer(config), self.config.formats[0]
        version = writer.write(self.path, form)
        if config.refines:
            writer.refine(self.path, form, version, threads=self.threads)

    def _writer(self, config: QuantizeConfig) -> SchemeWriter:
        return SchemeWriter(self.source, self.inputs, config, self.stages, convolutions=False)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The weights that may have fewer bits, with the damage and the bytes of each width."""
        held = Overrides(self.source.model, self.config).held_weights()
        graph = self.source.model.graph
        floats = {
            name: np.asarray(constant(graph.initializers[name]), np.float32)
            for name in self.found
            if name in graph.initializers and name not in held
        }
        fed = with_weights_fed(self.source.model, list(floats))
        feeds = self.kept_out[:_TRIAL_SAMPLES]
        trials = WeightTrials(fed, floats, feeds, self.source.folder, threads=self.threads)
        found = []
        with self.stages.stage("widths", len(floats) * len(_BLOCK_MEASURED)) as step:
            for name, w in floats.items():
                array, layout = self.found[name]
                ways, measured = dict[Form, QTensor](), dict[Form, float]()
                for form in self.forms:
                    method = self.config.block_quantizer(form.bits)
                    narrow = replace(layout, qtype=QType(form.bits, signed=False))
                    ways[form] = method.quantize(array, narrow)
                    if form.bits in _BLOCK_MEASURED:
                        values = ways[form].dequantize().reshape(w.shape)
                        measured[form] = trials.error({name: values})
                        step()
                found.append(layer_of(name, array, ways, measured))
        return tuple(found)
