"""Fashion-MNIST, 2,000 labels: ResNet-14 teaches ResNet-8.

  python -m kdjax.main --config=experiments/fashion_mnist_cnn_kd.py

Data: `python -m kdjax.prepare --dataset=fashion_mnist` first. The teacher
learns from all 54,000 training images for two epochs, the student from 2,000 of
them. A pair for features and relations on a CPU: 200 s of processor time, of
which 160 train the teacher, once. Test accuracy after the last step, mean ±
standard deviation over seeds 0 to 2, by `python benchmarks/families.py`: KD
85.71 ± 0.18 %, cross-entropy 83.39 ± 0.05 %, teacher 91.07 %. docs/families.md
compares all methods.
"""

from ml_collections import ConfigDict

from kdjax.config import default


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`."""
  config = default()
  config.method = 'kd'
  config.dataset.name = 'fashion_mnist'
  config.dataset.augment = 'none'
  config.dataset.num_labels = 2000
  config.teacher.name = 'resnet14'
  config.teacher.num_epochs = 2
  config.teacher.batch_size = 128
  config.teacher.learning_rate = 0.1
  config.student.name = 'resnet8'
  config.schedule.name = 'cosine'
  # In the published recipe DKD warms up over a twelfth of the run, and CRD
  # draws a third as many negatives as there are examples.
  config.loss_warmup_epochs = 2
  config.terms.crd.num_negatives = 655
  config.num_epochs = 20
  config.batch_size = 64
  config.eval_every_epochs = 5
  return config
