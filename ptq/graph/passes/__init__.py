"""The prepare passes: one rewrite per file, each keeping the float function of the model.

The order they run in is `ptq.graph.normalize.STAGES`.
"""
