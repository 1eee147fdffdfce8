"""Fashion-MNIST, all labels: an MLP teaches a small one. KD does not help.

  python -m kdjax.main --config=experiments/fashion_mnist_kd.py

Data: `python -m kdjax.prepare --dataset=fashion_mnist` first. 26 s on 2 CPU
cores, of which 19 train the teacher, once. Test accuracy after the last step,
mean ± standard deviation over seeds 0 to 4, by
`python benchmarks/seeds.py --config=experiments/fashion_mnist_kd.py`, and with
`--config.method=ce`: KD 88.08 ± 0.05 %, cross-entropy 88.03 ± 0.15 %, teacher
89.76 %. docs/studies/fashion_mnist.md compares all methods.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`."""
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
  config.weight = 0.3
  config.temperature = 1.0
  config.topk = 3
  config.num_epochs = 20
  config.batch_size = 128
  config.eval_every_epochs = 5
  return config
