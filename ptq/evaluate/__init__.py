"""Prove a quantized model: what ran in integers, how close it is, how fast."""
