"""ImageNet, ResNet-152 teaches ResNet-50 by its whole distribution.

  python -m kdjax.main --config=experiments/imagenet_kd.py

Data: `python -m kdjax.prepare --dataset=imagenet2012 --manual_dir=DIR` first,
where DIR holds the two published archives. Hardware: eight GPUs or a TPU
slice; with fewer, `--config.accumulate_steps=8` works on a batch in parts.
docs/scale.md says what changes with the number of devices, and what to expect.
The teacher is trained first, unless `--config.teacher.checkpoint=DIR` gives
one. Not measured by us yet: no figure of ours stands behind these values,
which are the usual ones of a training with batches of 1,024.
"""

from ml_collections import ConfigDict

from kdjax.config import default

# Images in train, of which 1 % is held out as dev.
NUM_EXAMPLES = 1_281_167
BATCH_SIZE = 1024


def get_config() -> ConfigDict:
  """Returns the delta on `kdjax.config.default()`."""
  config = default()
  config.dataset.name = 'imagenet2012'
  config.dataset.augment = 'resized_crop_flip'
  config.dataset.dev_fraction = 0.01
  config.compute_dtype = 'bfloat16'
  config.teacher.name = 'resnet152'
  config.teacher.num_epochs = 90
  config.teacher.batch_size = BATCH_SIZE
  config.teacher.learning_rate = 0.4
  config.student.name = 'resnet50'
  config.method = 'kd'
  config.weight = 0.5
  config.temperature = 1.0
  config.num_epochs = 90
  config.batch_size = BATCH_SIZE
  config.learning_rate = 0.4  # 0.1 for each 256 examples
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 1e-4
  config.schedule.name = 'cosine'
  steps_per_epoch = int(0.99 * NUM_EXAMPLES) // BATCH_SIZE
  config.schedule.warmup_steps = 5 * steps_per_epoch
  config.eval_every_epochs = 1
  config.eval_batch_size = 1024
  config.log_every_steps = 100
  return config
