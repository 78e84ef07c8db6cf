"""From a posterior to a smaller network: sweep, cut, fine-tune, export, report."""

from pyro_vbd.compression.cut import Cut as Cut
from pyro_vbd.compression.cut import cut as cut
from pyro_vbd.compression.operation import register_operation as register_operation
from pyro_vbd.compression.select import Select as Select
from pyro_vbd.compression.sweep import Sweep as Sweep
from pyro_vbd.compression.sweep import sweep as sweep

__all__ = ["Cut", "Select", "Sweep", "cut", "register_operation", "sweep"]
