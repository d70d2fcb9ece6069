"""Rules of differentiation: one family of operators each file, found by themselves."""
