"""Training graphs: what a network becomes when its weights and ranges are to be trained."""
