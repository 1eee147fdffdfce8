"""CIFAR-100, ResNet-56 teaches ResNet-20 by decoupled distillation.

  python -m kdjax.main --config=experiments/cifar100_dkd.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Hardware: one GPU.
Published for this recipe: 71.97 % (Zhao et al. 2022, mean of 5, all 50,000
training images). Not measured by us yet; 10 % of train is held out here.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`, the published recipe."""
  config = default()
  config.method = 'dkd'
  config.nontarget_weight = 2.0  # β for this pair
  return config
