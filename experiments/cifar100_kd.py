"""CIFAR-100, ResNet-56 teaches ResNet-20 by its whole distribution.

  python -m kdjax.main --config=experiments/cifar100_kd.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Hardware: one GPU.
Published for this recipe: 70.66 % (Tian et al. 2020, mean of 5, all 50,000
training images; teacher 72.34, CE 69.06). Not measured by us yet; 10 % of
train is held out here.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`, the published recipe."""
  config = default()
  config.method = 'kd'
  return config
