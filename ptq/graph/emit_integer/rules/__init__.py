"""The fusions, one file each: a file here that registers a rule is all that it takes."""
