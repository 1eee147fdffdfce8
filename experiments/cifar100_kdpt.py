"""CIFAR-100, ResNet-56 teaches ResNet-20 only how sure it is of the label.

  python -m kdjax.main --config=experiments/cifar100_kdpt.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Hardware: one GPU.
A softened confidence spreads much mass evenly over 99 classes, so T is lower
than for full KD. No published figure for this recipe; not measured by us yet.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`, the published recipe."""
  config = default()
  config.method = 'kd_pt'
  config.temperature = 2.0
  return config
