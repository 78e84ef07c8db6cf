"""How a layer's output is drawn from its weights' posterior: per datum and output, per datum by signs, or once a batch."""

from pyro_vbd.estimators import rules as rules  # a Gaussian tensor without them would be drawn everywhere
