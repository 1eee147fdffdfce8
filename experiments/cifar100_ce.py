"""CIFAR-100, ResNet-20 by plain cross-entropy.

  python -m kdjax.main --config=experiments/cifar100_ce.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Hardware: one GPU.
Published for this recipe: 69.06 % (Tian et al. 2020, mean of 5, all 50,000
training images). Not measured by us yet; 10 % of train is held out here.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`, the published recipe."""
  config = default()
  config.method = 'ce'
  return config
