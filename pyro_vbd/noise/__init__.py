"""Multiplicative noise on inputs, units, channels and attention heads, as modules."""

from pyro_vbd.noise.add_gates import add_gates as add_gates
from pyro_vbd.noise.attention import HeadwiseAttention as HeadwiseAttention
from pyro_vbd.noise.gate import Gate as Gate

__all__ = ["Gate", "HeadwiseAttention", "add_gates"]
