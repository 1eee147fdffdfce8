import numpy as np
from PIL import Image

from kdjax.train import figures


def test_curves_are_drawn_in_their_colours(tmp_path):
  rows = [
    {'step': s, 'epoch': s / 2, 'train_loss': 1 / s, 'train_accuracy': 0.5}
    for s in (1, 2, 3)
  ]
  rows += [{'step': s, 'dev_accuracy': s / 4} for s in (1, 3)]
  path = tmp_path / 'curves.png'
  figures.curves(path, {'teacher': rows, 'student': rows[::-1]})
  pixels = np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3)
  red = np.array([0xD1, 0x49, 0x5B])
  assert np.sum(np.all(pixels == red, axis=1)) > 100


def test_a_loss_that_is_not_finite_leaves_a_gap(tmp_path):
  rows = [{'step': 1, 'epoch': 1, 'train_loss': None}]
  figures.curves(tmp_path / 'curves.png', {'student': rows})
  assert (tmp_path / 'curves.png').exists()
