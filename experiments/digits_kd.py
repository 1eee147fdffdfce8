"""draft"""

from kdjax.config import default


def get_config():
  config = default()
  config.dataset.name = 'digits'
  config.dataset.augment = 'none'
  config.dataset.num_labels = 100
  config.teacher.update({'name': 'mlp', 'widths': (256, 256), 'num_epochs': 60})
  config.student.update({'name': 'mlp', 'widths': (32,)})
  config.num_epochs = 300
  config.batch_size = 50
  config.schedule.name = 'cosine'
  config.baseline = True
  return config
