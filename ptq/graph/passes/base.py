"""What every prepare pass is: a rewrite in place that counts what it changed."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir


@dataclass
class Outcome(ir.passes.PassResult):
    """A pass result that says how much was changed.

    Attributes:
        count: how many things were rewritten; 0 exactly when ``modified`` is false.
    """

    count: int


class Rewrite(ir.passes.InPlacePass):
    """A rewrite that keeps the function, the inputs and the outputs of the model.

    Every rewrite is idempotent: a second run changes nothing.

    Attributes:
        subject: what it works on, as the user knows it: ``batchnorm``.
        verb: what it did: ``folded``.
    """

    subject: ClassVar[str]
    verb: ClassVar[str]

    @abc.abstractmethod
    def apply(self, model: ir.Model) -> int:
        """Rewrite the model and return how many things were changed."""

    def call(self, model: ir.Model) -> Outcome:
        """Run the rewrite; the interface of `ir.passes.PassBase`."""
        count = self.apply(model)
        return Outcome(model, modified=count > 0, count=count)

    def note(self, count: int) -> str:
        """Return one line that tells the user what was done."""
        return f"{self.subject}: {count} {self.verb}"
