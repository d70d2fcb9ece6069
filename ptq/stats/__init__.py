"""Mergeable summaries of a tensor's values: one file for each."""
