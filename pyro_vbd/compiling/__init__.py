"""A training step as one compiled graph: traced once, checked, turned into machine code."""
