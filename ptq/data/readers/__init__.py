"""One file per form of data; each defines a `Dataset` and needs no registration elsewhere."""
