"""A text: what part of KD helps a small language model?

  python -m kdjax.study --config=experiments/study_text.py

reads Python's own documentation, which every machine has. For a text of your
own add --config.dataset.name=text_file --config.dataset.data_dir=FILE, and for
its letters --config.dataset.text.tokens=char. The 1,000 most frequent words are
told apart.

90 students in 4 min 36 s on 2 CPU cores (AMD EPYC), the teacher from the cache,
with --config.study.over_members=scan. Test perplexity on the manual of Python
3.11.7, 5 seeds: teacher 35.0, cross-entropy 50.6 ± 1.1, KD 48.7 ± 1.0: no gain
is significant. docs/studies/text_python_docs.md has all of it.
"""

from ml_collections import ConfigDict

from kdjax.study.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.study.config.default()`."""
  config = default()
  config.dataset.name = 'python_docs'
  config.dataset.augment = 'none'
  config.dataset.text.sequence_length = 35
  config.dataset.text.vocabulary_size = 1000
  config.teacher.name = 'lstm'
  config.teacher.widths = (256,)
  config.teacher.dropout = 0.5
  config.teacher.num_epochs = 20
  config.teacher.batch_size = 20
  config.teacher.learning_rate = 0.005
  config.student.name = 'lstm'
  config.student.widths = (32,)
  config.batch_size = config.eval_batch_size = 20
  config.num_epochs = 8
  config.eval_every_epochs = 2
  config.optimizer.name = 'adamw'
  config.optimizer.weight_decay = 0.0
  config.optimizer.clip_norm = 1.0
  config.schedule.name = 'cosine'
  config.study.arms = (
    'ce',
    'ls',
    'kd',
    'kd_pt',
    'kd_sim',
    'kd_topk topk=2',
    'kd_topk topk=10',
    'kd_topk topk=50',
    'kd_topk_bucket topk=10',
  )
  config.study.search.learning_rate = (0.005, 0.03)
  config.study.search.temperature = (1.0, 4.0)
  config.study.search.smoothing = (0.01, 0.3)
  config.study.num_trials = 5
  config.study.when_quick = (
    ('dataset.text.vocabulary_size', 100),
    ('student.widths', (8,)),
    ('teacher.widths', (16,)),
    ('num_epochs', 1),
    ('teacher.num_epochs', 1),
    ('study.over_members', 'vmap'),  # nothing is measured
    ('study.num_trials', 2),
    ('study.num_seeds', 2),
    ('study.arms', ('ce', 'kd', 'kd_topk topk=2', 'kd_topk_bucket topk=10')),
  )
  return config
