"""Range methods: statistics of a tensor in, clipping range out; one file for each method."""

from ptq.calib.base import Range, Solver, parse_method, solver, solvers

__all__ = ["Range", "Solver", "parse_method", "solver", "solvers"]
