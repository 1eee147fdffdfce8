"""Fashion-MNIST: what part of KD helps, with all labels and with few.

  python -m kdjax.study --config=experiments/study_fashion_mnist.py

Data: `python -m kdjax.prepare --dataset=fashion_mnist` first. 400 students,
9 minutes on 2 CPU cores with other work on them. Results, in
docs/studies/fashion_mnist.md: with 1,000 labels KD gains 2.2 points over
cross-entropy, with all 54,000 nothing does.
"""

from ml_collections import ConfigDict

from kdjax.study.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.study.config.default()`."""
  config = default()
  config.dataset.name = 'fashion_mnist'
  config.dataset.augment = 'none'
  config.teacher.name = 'mlp'
  config.teacher.widths = (512, 512)
  config.teacher.dropout = 0.3
  config.teacher.num_epochs = 20
  config.teacher.batch_size = 128
  config.student.name = 'mlp'
  config.student.widths = (32,)
  config.schedule.name = 'cosine'
  config.topk = 3
  config.batch_size = 128
  config.study.search.learning_rate = (0.01, 0.3)
  config.study.search.optimizer.weight_decay = (1e-4, 1e-2)
  config.study.search.similarity_temperature = (0.03, 0.5)
  config.study.search.mix = (0.1, 0.9)
  config.study.num_trials = 20
  config.study.scenarios = (
    (
      ('dataset.num_labels', 1000),
      ('num_epochs', 400),
      ('eval_every_epochs', 50),
    ),
    (
      ('dataset.num_labels', 0),
      ('num_epochs', 15),
      ('eval_every_epochs', 3),
    ),
  )
  config.study.when_quick = (
    ('teacher.num_epochs', 1),
    ('study.num_trials', 2),
    ('study.num_seeds', 2),
    (
      'study.scenarios',
      ((('dataset.num_labels', 1000), ('num_epochs', 10)),),
    ),
  )
  return config
