"""What `ptq quantize --dry-run` foresees: what becomes of nodes, and how large presets come."""

from __future__ import annotations

import msgspec

from ptq.config import QuantizeConfig
from ptq.report.inspection import Inspection, inspection_text
from ptq.report.table import aligned, megabytes


class PresetForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a preset would come to.

    Attributes:
        name: of the preset.
        summary: what it is for.
        settings: the options it sets.
        predicted_bytes: about how large the file would be, other options being as given;
            ``None`` if it does not go with them.
        why: why not, if so.
        chosen: whether it is the one that was asked for.
    """

    name: str
    summary: str
    settings: dict[str, object]
    predicted_bytes: int | None
    why: str = ""
    chosen: bool


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do.

    Attributes:
        inspection: the model, and what would become of it.
        config: every setting.
        presets: what others would come to.
    """

    inspection: Inspection
    config: QuantizeConfig
    presets: tuple[PresetForecast, ...]


def dry_run_text(found: DryRun) -> str:
    """Return what `ptq quantize --dry-run` prints."""
    rows = [_row(preset, found.inspection.size_bytes) for preset in found.presets]
    return "\n".join(
        [
            inspection_text(found.inspection),
            "",
            *aligned([("", "preset", "size", ""), *rows], words=2),
            "",
            "* has the settings of this run; sizes are with all in integers that can be",
        ]
    )


def _row(preset: PresetForecast, size_bytes: int) -> tuple[str, str, str, str]:
    mark = "*" if preset.chosen else ""
    if preset.predicted_bytes is None:
        return mark, preset.name, "-", preset.why
    said = f"{size_bytes / preset.predicted_bytes:.2f}x smaller; {preset.summary}"
    return mark, preset.name, megabytes(preset.predicted_bytes), said
