"""From a posterior to a smaller network: sweep, cut, fine-tune, export, report."""

from pyro_vbd.compression.compress import compress as compress
from pyro_vbd.compression.cut import Cut as Cut
from pyro_vbd.compression.cut import cut as cut
from pyro_vbd.compression.export import load_safetensors as load_safetensors
from pyro_vbd.compression.export import save_onnx as save_onnx
from pyro_vbd.compression.export import save_safetensors as save_safetensors
from pyro_vbd.compression.fine_tune import fine_tune as fine_tune
from pyro_vbd.compression.latency import latencies as latencies
from pyro_vbd.compression.operation import register_operation as register_operation
from pyro_vbd.compression.report import Report as Report
from pyro_vbd.compression.restrict import restrict as restrict
from pyro_vbd.compression.select import Select as Select
from pyro_vbd.compression.sparse_file import load_sparse as load_sparse
from pyro_vbd.compression.sparse_file import save_sparse as save_sparse
from pyro_vbd.compression.sweep import Sweep as Sweep
from pyro_vbd.compression.sweep import sweep as sweep

__all__ = [
    "Cut",
    "Report",
    "Select",
    "Sweep",
    "compress",
    "cut",
    "fine_tune",
    "latencies",
    "load_safetensors",
    "load_sparse",
    "register_operation",
    "restrict",
    "save_onnx",
    "save_safetensors",
    "save_sparse",
    "sweep",
]
