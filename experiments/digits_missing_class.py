"""Digits without a single 3: the student learns the 3 from the teacher.

  python -m kdjax.main --config=experiments/digits_missing_class.py

The teacher knows all ten digits; the student's transfer set has no 3, neither
image nor label. What it learns of the 3 it learns from the probabilities that
the teacher gives it beside other digits. 8 s on 2 CPU cores. Test accuracy on
the 3s, mean ± standard deviation over seeds 0 to 4, by
`python benchmarks/seeds.py --config=experiments/digits_missing_class.py`:
KD 88.40 ± 5.37 %, cross-entropy 0 %, teacher 100 %; on all digits 96.76 ± 0.52,
87.60 ± 0.24 and 98.2 %.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`."""
  config = default()
  config.dataset.name = 'digits'
  config.dataset.augment = 'none'
  config.dataset.exclude_classes = (3,)
  config.teacher.name = 'mlp'
  config.teacher.widths = (256, 256)
  config.teacher.num_epochs = 60
  config.student.name = 'mlp'
  config.student.widths = (32,)
  config.schedule.name = 'cosine'
  config.temperature = 8.0
  config.weight = 1.0
  config.baseline = True
  config.num_epochs = 100
  config.batch_size = 50
  return config
