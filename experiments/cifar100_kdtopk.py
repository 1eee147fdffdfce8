"""CIFAR-100, ResNet-56 teaches ResNet-20 its ten likeliest classes.

  python -m kdjax.main --config=experiments/cifar100_kdtopk.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Hardware: one GPU.
The rest of the teacher's mass is spread evenly, without its noise. No
published figure for this recipe; not measured by us yet.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`, the published recipe."""
  config = default()
  config.method = 'kd_topk'
  config.topk = 10
  return config
