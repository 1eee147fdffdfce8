"""A study of a few seconds: its file, and what it leaves."""

import json

_FILE = """
from kdjax.study.config import default


def get_config():
  config = default()
  config.dataset.name = 'synthetic_classes'
  config.dataset.augment = 'none'
  config.dataset.dev_fraction = 0.5
  options = config.dataset.options
  options.num_examples, options.num_test_examples = 120, 80
  options.num_inputs, options.num_classes, options.num_groups = 12, 6, 2
  config.student.name = config.teacher.name = 'mlp'
  config.student.widths, config.teacher.widths = (5,), (16,)
  config.batch_size = config.teacher.batch_size = 10
  config.num_epochs, config.teacher.num_epochs = 3, 2
  config.eval_every_epochs = 1
  config.schedule.name = 'cosine'
  config.topk = 2
  config.study.arms = ('ce', 'kd_topk topk=3')
  config.study.search.learning_rate = (0.05, 1.0)
  config.study.search.optimizer.weight_decay = (1e-3, 1e-1)
  config.study.num_trials = 2
  config.study.num_search_seeds = 2
  config.study.num_seeds = 2
  config.study.when_quick = (
    ('eval_every_epochs', 3),
    ('study.scenarios', ((),)),
  )
  {line}
  return config
"""


def write(path, line=''):
  """Writes the study's file, with one more line."""
  path.write_text(_FILE.replace('{line}', line))
  return path


def read(workdir):
  """The records."""
  return [json.loads(line) for line in lines(workdir)]


def lines(workdir):
  return (workdir / 'runs.jsonl').read_text().splitlines()
