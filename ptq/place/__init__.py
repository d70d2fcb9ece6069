"""Which operators are worth an integer kernel: their measured costs, and the cheapest cut."""
