"""Synthetic classes: which teachers help, and which hurt?

  python -m kdjax.study --config=experiments/study_teacher.py

From one teacher three things are varied, one at a time: its width, the label
smoothing that it is trained with (0 is plain cross-entropy), and how long.

1,020 students, 9 minutes on 2 CPU cores with other work on them. Results, in
docs/studies/teacher.md: label smoothing of 0.3 costs the teacher 3.7 points and
its KD student 5.3; a teacher of 50.9 %, far below the student's own 62.5 %,
still adds 4.0.
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
  config.dataset.options.correlation = 0.6
  config.teacher.name = 'mlp'
  config.teacher.widths = (512,)
  config.teacher.method = 'ls'
  config.teacher.smoothing = 0.0
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
  config.study.arms = ('ce', 'ls', 'kd', 'kd_pt', 'kd_topk')
  config.study.num_trials = 12
  config.study.scenarios = (
    (),
    *((('teacher.widths', (width,)),) for width in (16, 32, 64, 2048)),
    *((('teacher.smoothing', epsilon),) for epsilon in (0.1, 0.3, 0.6)),
    *((('teacher.num_epochs', epochs),) for epochs in (1, 2, 5, 80)),
  )
  config.study.when_quick = (
    ('dataset.num_labels', 1000),
    ('num_epochs', 3),
    ('teacher.num_epochs', 1),
    ('study.num_trials', 2),
    ('study.num_seeds', 2),
    ('study.scenarios', ((), (('teacher.smoothing', 0.6),))),
  )
  return config
