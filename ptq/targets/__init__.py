"""What a backend runs in integers, declared in one TOML file per target."""

from ptq.targets.target import OpRule, Target, load_target, target_names

__all__ = ["OpRule", "Target", "load_target", "target_names"]
