"""How a layer's output is drawn from its weights' posterior: per datum and output, per datum by signs, or once a batch."""
