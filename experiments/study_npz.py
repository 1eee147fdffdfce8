"""Your own data, a folder of `.npz`: which part of KD works for them?

  python -m kdjax.study --config=experiments/study_npz.py

with --config.dataset.data_dir=FOLDER; docs/study.md says what it holds. Copy
this file, and set networks, epochs and ranges that suit your data: these are
for some hundred small vectors, with which it takes a minute on 2 CPU cores.
"""

from ml_collections import ConfigDict

from kdjax.study.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.study.config.default()`."""
  config = default()
  config.dataset.name = 'npz'
  config.dataset.augment = 'none'
  config.dataset.dev_fraction = 0.3
  config.teacher.name = 'mlp'
  config.teacher.widths = (128, 128)
  config.teacher.batch_size = 16
  config.teacher.num_epochs = 60
  config.student.name = 'mlp'
  config.student.widths = (8,)
  config.schedule.name = 'cosine'
  config.topk = 2
  config.batch_size = 16
  config.num_epochs = 60
  config.eval_every_epochs = 10
  config.study.when_quick = (
    ('num_epochs', 5),
    ('teacher.num_epochs', 5),
    ('study.num_trials', 2),
    ('study.num_seeds', 2),
  )
  return config
