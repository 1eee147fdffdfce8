"""The training engine: a thin functional shell around the losses."""
