"""The prepare passes: one rewrite per file, each keeping the float function of the model.

`ptq.graph.normalize` runs them, and says in which order and why.
"""
