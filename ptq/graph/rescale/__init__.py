"""Move scales of channels from one operator into the next, which leaves the function as it is."""
