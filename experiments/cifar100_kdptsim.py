"""CIFAR-100, ResNet-56 teaches ResNet-20 confidence and class relations.

  python -m kdjax.main --config=experiments/cifar100_kdptsim.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Hardware: one GPU.
The even mixture of kd_pt and kd_sim. No published figure for this recipe; not
measured by us yet.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`, the published recipe."""
  config = default()
  config.method = 'kd_pt_sim'
  config.temperature = 2.0
  return config
