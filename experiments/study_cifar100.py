"""CIFAR-100, ResNet-56 to ResNet-20: what part of KD helps. For a GPU.

  python -m kdjax.study --config=experiments/study_cifar100.py

Data: `python -m kdjax.prepare --dataset=cifar100` first. Not measured: no GPU
was at hand.
"""

from ml_collections import ConfigDict

from kdjax.study.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.study.config.default()`."""
  config = default()
  config.eval_every_epochs = 20
  config.study.num_trials = 6
  config.study.num_seeds = 3
  config.study.search.learning_rate = (0.02, 0.2)
  config.study.search.topk = (2, 50)
  config.study.when_quick = (
    ('student.name', 'resnet8'),
    ('teacher.name', 'mlp'),
    ('dataset.num_labels', 640),
    ('num_epochs', 1),
    ('teacher.num_epochs', 1),
    ('study.arms', ('ce', 'kd')),
    ('study.num_trials', 2),
    ('study.num_seeds', 2),
  )
  return config
