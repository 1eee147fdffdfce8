"""CIFAR-100, ResNet-20 with label smoothing, the teacher that knows nothing.

  python -m kdjax.main --config=experiments/cifar100_ls.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Hardware: one GPU.
No published figure for this recipe; not measured by us yet.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`, the published recipe."""
  config = default()
  config.method = 'ls'
  config.smoothing = 0.1
  return config
