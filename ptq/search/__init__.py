"""Searches over plans: try, measure on the network's output, keep what is better."""
