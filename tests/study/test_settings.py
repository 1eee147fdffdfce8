"""Settings some of whose values are replaced."""

from kdjax.study import settings


def test_what_is_laid_over_settings_leaves_them_as_they_were():
  first = settings.namespace({'weight': 0.5, 'optimizer': {'name': 'sgd'}})
  varied = {'weight': 0.1, 'optimizer.weight_decay': 0.2, 'kept': 3}
  found = settings.overlaid(first, varied)
  assert (found.weight, found.kept) == (0.1, 3)
  assert vars(found.optimizer) == {'name': 'sgd', 'weight_decay': 0.2}
  assert first.weight == 0.5
  assert vars(first.optimizer) == {'name': 'sgd'}
  assert not hasattr(first, 'kept')
