"""CIFAR-100, ResNet-56 teaches ResNet-20 only how its classes relate.

  python -m kdjax.main --config=experiments/cifar100_kdsim.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Hardware: one GPU.
The target depends on the label alone, through the teacher's last layer. No
published figure for this recipe; not measured by us yet.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`, the published recipe."""
  config = default()
  config.method = 'kd_sim'
  config.temperature = 1.0
  config.weight = 0.5
  return config
