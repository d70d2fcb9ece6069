"""`ptq targets`: everything a model can be made for, and which of it is this machine."""

import msgspec
from support.cli import ptq

from ptq.config import QuantizeConfig
from ptq.report.targets import TargetInfo
from ptq.runtime.host import host_target
from ptq.targets import load_target, target_names


def listed() -> list[TargetInfo]:
    return msgspec.json.decode(ptq("targets", "--json").out, type=list[TargetInfo], strict=True)


def test_json_lists_every_target_as_its_file_describes_it():
    found = listed()
    assert [t.name for t in found] == target_names()
    for info in found:
        target = load_target(info.name)
        assert (info.title, info.activation, info.weight) == (
            target.title,
            target.activation,
            target.weight,
        )
        assert set(info.operators) == set(target.ops)
        assert (info.bias == "int32") == all(r.integer_bias for r in target.ops.values())


def test_one_of_them_is_this_machine():
    assert [t.name for t in listed() if t.here] == [host_target()]
    lines = ptq("targets").out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("*")] == [host_target(), "this"]


def test_text_shows_what_json_holds():
    done = ptq("targets")
    assert (done.code, done.err) == (0, "")
    told = " ".join(done.out.split())
    for target in listed():
        assert f" {target.name} {target.activation}" in told
        assert target.title in told
        assert ", ".join(target.operators) in told
    assert max(map(len, done.out.splitlines())) <= 100


def test_every_name_can_be_given_to_quantize():
    for target in listed():
        QuantizeConfig(target=target.name).require_known()


def test_it_is_among_the_commands():
    assert "targets " in ptq("--help").out
