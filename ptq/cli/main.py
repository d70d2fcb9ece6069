"""The `ptq` command: finds the subcommand, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from types import FrameType

import click

from ptq import __version__
from ptq.cli.progress import INTERRUPTED
from ptq.errors import PtqError

#: Subcommands and what they are for; a module is imported only when its command runs.
_COMMANDS = {
    "quantize": "Quantize a float model to int8, and prove the result.",
    "check": "Hold accuracy, size and speed of a quantized model, for CI: exit 3 if missed.",
    "tune": "Find the cheapest settings that hold an accuracy, a speed and a size.",
    "compare": "Show layer by layer how far a quantized model is from the float one.",
    "sensitivity": "Measure which layers do not bear quantization, and choose what stays float.",
    "batch": "Quantize and check every model that a recipe names.",
    "calibrate": "Observe a model on data and keep the statistics.",
    "qat": "Fine-tune a quantized network, with this trainer or another.",
    "bench": "Compare the latency, size and memory of models.",
    "report": "Turn the JSON report of a quantization into a page, or into Markdown.",
    "recipe": "Show the settings that hold for a model, or those that made one.",
    "inspect": "Show what a model is made of, and what would be or is quantized.",
    "methods": "List the range methods, weight quantizers and metrics.",
    "targets": "List what a model can be made for, and what this machine is.",
}


class _Commands(click.Group):
    """A group that knows its commands by name and imports them when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"ptq.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 a threshold was "
    "missed, 130 interrupted.",
)
@click.version_option(__version__, prog_name="ptq")
def _ptq() -> None:
    """Post-training quantization of ONNX models: a float model in, a verified int8 model out."""


def _terminated(number: int, _: FrameType | None) -> None:
    """End as an exception, so that what is half done is removed; `timeout` ends us like this."""
    sys.exit(128 + number)


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _ptq.main(prog_name="ptq", auto_envvar_prefix="PTQ", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted; nothing was written", err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except PtqError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        # the reader of our output went away, as `ptq methods | head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        # a disk that is full, a folder that went away: nothing a traceback would explain
        click.echo(f"error: {error}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
