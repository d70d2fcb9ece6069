"""Write docs/cli.md from the commands themselves (`make docs`); --check says if it is stale."""

import argparse
import inspect
import re
import sys
from pathlib import Path

import click

from ptq import errors
from ptq.cli.main import INTERRUPTED, _ptq

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

HEAD = """\
# Command line reference

This page is made from the commands themselves: `make docs` writes it anew.

`--help` after a command prints its part. Results go to stdout, progress and notes to stderr. No
command replaces a file unless it is told so, and none writes anything where it fails, but for the
results of `ptq check`, which CI wants above all where a threshold is missed.

## Settings from elsewhere

Every option can be set by the variable in the last column. `1` and `0` set a flag, and the values
of an option that may be given several times are separated by spaces. The command line wins over the
variable, and the variable over a recipe file.

`PTQ_CACHE` names the folder where measured placements are kept; set to nothing, none are kept.
"""

#: A default that the help text itself says, at its end.
_SAID = re.compile(r"\s{2,}\[(?P<default>[^]]+)\]$")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    text = page()
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/cli.md is stale; run make docs")


def page():
    """Return the whole reference as Markdown."""
    settings = {**_ptq.context_settings, "auto_envvar_prefix": "PTQ"}
    root = click.Context(_ptq, info_name="ptq", **settings)
    commands = list(_walk(root))
    listed = "\n".join(
        f"- [`{path(ctx)}`](#{path(ctx).replace(' ', '-')}): {ctx.command.get_short_help_str(200)}"
        for ctx in commands
    )
    sections = [section(ctx) for ctx in commands]
    return "\n".join([HEAD, "## Commands\n", listed, "", exit_codes(), *sections])


def path(ctx):
    return ctx.command_path


def _walk(parent):
    """Yield the context of every command below one, those of groups included."""
    for name in parent.command.list_commands(parent):
        command = parent.command.get_command(parent, name)
        settings = command.context_settings
        ctx = click.Context(command, info_name=name, parent=parent, **settings)
        if isinstance(command, click.Group):
            yield from _walk(ctx)
        else:
            yield ctx


def exit_codes():
    """Return the table of exit codes, with what the code says that they are for."""
    reasons = {}
    for _, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, errors.PtqError) and error is not errors.PtqError:
            reasons.setdefault(error.exit_code, []).append(_first_line(error))
    reasons[0] = ["Done."]
    reasons[1].append("The disk is full, or the like.")
    reasons[2].insert(0, "A command or option does not exist, or lacks its value.")
    reasons[INTERRUPTED] = ["Interrupted (Ctrl-C); nothing was written."]
    rows = [f"| {code} | {why} |" for code in sorted(reasons) for why in reasons[code]]
    return "\n".join(["## Exit codes\n", "| code | when |", "|--:|---|", *rows, ""])


def section(ctx):
    """Return what there is to say of one command."""
    command = ctx.command
    usage = " ".join([path(ctx), *command.collect_usage_pieces(ctx)])
    lines = [f"## {path(ctx)}\n", f"```\n{usage}\n```\n", _prose(command.help), ""]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    rows = [row(option, ctx) for option in options]
    if rows:
        lines += ["| option | | default | variable |", "|---|---|---|---|", *rows, ""]
    if command.epilog:
        lines += [_prose(command.epilog), ""]
    return "\n".join(lines)


def row(option, ctx):
    """Return one option as a row: how it is written, what it does, its default, its variable."""
    extra = option.get_help_extra(ctx)
    text = re.sub(r"[^\S ]+", " ", option.help or "")
    said = _SAID.search(text)
    # what takes its default from the machine says so in words; click then puts it in brackets
    default = said["default"] if said else extra.get("default", "").strip("()")
    text = text[: said.start()] if said else text
    notes = [extra[key] for key in ("range", "required") if extra.get(key)]
    text = f"{text.strip()} ({', '.join(notes)})" if notes else text.strip()
    variable = ""
    if option.allow_from_autoenv and ctx.auto_envvar_prefix and option.expose_value:
        variable = f"`{ctx.auto_envvar_prefix}_{option.name.upper()}`"
    if isinstance(option.envvar, str):
        variable = f"`{option.envvar}`"
    cells = [f"`{_written(option, ctx)}`", text, default, variable]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _written(option, ctx):
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:
        names = f"{names} / {', '.join(option.secondary_opts)}"
    if option.is_flag or option.count:
        return names
    metavar = option.make_metavar(ctx)
    metavar = metavar.removesuffix(" RANGE")
    return f"{names} {metavar.strip('[]') if isinstance(option.type, click.Choice) else metavar}"


def _prose(text):
    """Return a help text as paragraphs; what click keeps as it is becomes a code block."""
    blocks = []
    for block in inspect.cleandoc(text or "").split("\n\n"):
        kept = block.startswith("\b")
        blocks.append(f"```\n{block[1:].strip(chr(10))}\n```" if kept else block.replace("\n", " "))
    return "\n\n".join(blocks)


def _first_line(documented):
    return (documented.__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    main()
