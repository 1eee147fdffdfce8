"""Synthetic classes: of how many classes should the teacher speak?

  python -m kdjax.study --config=experiments/study_topk.py

420 students, 3 minutes on 2 CPU cores with other work on them. Results, in
docs/studies/topk.md: accuracy rises until k = 5 to 10 of 50 classes, where it
is 0.3 to 0.5 points above that of all 50.
"""

from ml_collections import ConfigDict

from kdjax.study.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.study.config.default()`."""
  config = default()
  config.dataset.name = 'synthetic_classes'
  config.dataset.augment = 'none'
  # The teacher learns from 25,000 examples, a student from 5,000 of them; dev
  # is as large as test, since it selects the settings.
  config.dataset.options.num_examples = 30000
  config.dataset.dev_fraction = 1 / 6
  config.dataset.num_labels = 5000
  config.teacher.name = 'mlp'
  config.teacher.widths = (512,)
  config.teacher.learning_rate = 0.5
  config.teacher.batch_size = 128
  config.teacher.num_epochs = 20
  config.optimizer.weight_decay = 1.5e-3
  config.student.name = 'mlp'
  config.student.widths = (64,)
  config.schedule.name = 'cosine'
  config.num_epochs = 40
  config.study.search.learning_rate = (0.1, 0.8)
  config.study.search.optimizer.weight_decay = (1e-4, 1e-2)
  kept = (1, 2, 3, 5, 10, 20, 30, 40)
  config.study.arms = ('ce', 'kd', *(f'kd_topk topk={k}' for k in kept))
  config.study.scenarios = tuple(
    (('dataset.options.correlation', correlation),)
    for correlation in (0.0, 0.9)
  )
  config.study.when_quick = (
    ('dataset.num_labels', 1000),
    ('num_epochs', 3),
    ('teacher.num_epochs', 1),
    ('study.num_trials', 2),
    ('study.num_seeds', 2),
    ('study.scenarios', ((('dataset.options.correlation', 0.9),),)),
  )
  return config
