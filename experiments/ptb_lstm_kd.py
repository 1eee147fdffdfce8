"""Penn Treebank, Distillation: a medium LSTM teaches a small one.

  python -m kdjax.prepare --dataset=penn_treebank --manual_dir=FOLDER
  python -m kdjax.main --config=experiments/ptb_lstm_kd.py

FOLDER holds ptb.train.txt, ptb.valid.txt and ptb.test.txt. kd is
all that the teacher says of every next word.
Networks are those of Zaremba et al. 2014, arXiv:1409.2329, whose small LSTM
reaches a test perplexity of 114.5 and whose medium one 82.7, with batches of 20
rows; rows are of 35 words, as for their medium one. Here both learn by one
cosine from 20 to 0 (their rate of 1 is of a sum over words, ours of a mean).
Not measured: the text has a licence of its own, and a training takes a GPU.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`."""
  config = default()
  config.method = 'kd'
  config.temperature = 2.0
  config.weight = 0.5
  config.dataset.name = 'penn_treebank'
  config.dataset.augment = 'none'
  config.dataset.text.sequence_length = 35
  config.teacher.name = 'lstm_medium'
  config.teacher.dropout = 0.5
  config.teacher.num_epochs = 39
  config.teacher.batch_size = 20
  config.teacher.learning_rate = 20.0
  config.student.name = 'lstm_small'
  config.num_epochs = 20
  config.batch_size = 20
  config.learning_rate = 20.0
  config.optimizer.momentum = 0.0
  config.optimizer.weight_decay = 0.0
  config.optimizer.clip_norm = 0.25
  config.schedule.name = 'cosine'
  config.eval_every_epochs = 1
  config.eval_batch_size = 20
  config.log_every_steps = 200
  return config
