"""Synthetic classes: what part of KD helps, as classes become alike.

  python -m kdjax.study --config=experiments/study_synthetic.py

The teacher learns from 25,000 examples, a student from 5,000 of them. 1,600
students, 14 minutes on 2 CPU cores with other work on them. Results, in
docs/studies/synthetic.md: at r = 0 and M = 1 KD-pt gains 7.2 points over
cross-entropy, KD 22.5; at r = 0.9 KD-pt 0.6, KD-pt+sim (conditional) 2.7, KD
22.0.
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
  # With one sine term the task is linear, with two it is not.
  config.dataset.options.amplitude = 0.5
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
  config.study.search.similarity_temperature = (0.03, 0.5)
  config.study.search.mix = (0.1, 0.9)
  config.study.num_trials = 20
  config.study.scenarios = tuple(
    (
      ('dataset.options.correlation', correlation),
      ('dataset.options.nonlinearity', nonlinearity),
    )
    for nonlinearity in (1, 2)
    for correlation in (0.0, 0.3, 0.6, 0.9)
  )
  config.study.when_quick = (
    ('dataset.num_labels', 1000),
    ('num_epochs', 3),
    ('teacher.num_epochs', 1),
    ('study.num_trials', 2),
    ('study.num_seeds', 2),
    (
      'study.scenarios',
      (
        (('dataset.options.correlation', 0.0),),
        (('dataset.options.correlation', 0.9),),
      ),
    ),
  )
  return config
