import json

import chex
import pytest

from kdjax.train import teacher


def _obtain(config, dataset, workdir, session, reporter=None):
  session = session._replace(reporter=reporter or session.reporter)
  return teacher.obtain(config, dataset, workdir=workdir, session=session)


def _print_of(config, dataset):
  return teacher.fingerprint(teacher.config_of(config), dataset)


def test_it_is_trained_once_and_found_by_other_runs(
  config, digits, tmp_path, session, silent
):
  first = _obtain(config, digits, tmp_path / 'a', session)
  assert [name for name, *_ in silent.phases] == ['teacher']
  config.update({'seed': 5, 'method': 'dkd', 'temperature': 9.0})
  second = _obtain(config, digits, tmp_path / 'b', session)
  assert len(silent.phases) == 1
  assert 'from the cache' in silent.said[0]
  assert (tmp_path / 'b' / 'teacher' / 'config.json').exists()
  chex.assert_trees_all_equal(first[1:], second[1:])


def test_without_a_cache_it_stays_in_the_workdir(
  config, digits, tmp_path, session, silent
):
  config.teacher.cache_dir = 'off'
  for _ in range(2):
    _obtain(config, digits, tmp_path / 'a', session)
  assert len(silent.phases) == 1
  assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize(
  'change',
  [
    {'teacher': {'widths': (13,)}},
    {'teacher': {'seed': 1}},
    {'teacher': {'num_epochs': 2}},
    {'teacher': {'learning_rate': 0.01}},
    {'teacher': {'method': 'ls'}},
    {'optimizer': {'weight_decay': 0.0}},
    {'schedule': {'name': 'constant'}},
  ],
)
def test_what_determines_it_is_in_its_fingerprint(change, config, digits):
  before = _print_of(config, digits)
  config.update(change)
  assert _print_of(config, digits) != before


def test_the_data_are_in_its_fingerprint(config, digits, forty):
  assert _print_of(config, digits) != _print_of(config, forty)


@pytest.mark.parametrize(
  'change',
  [
    {'seed': 1},
    {'method': 'kd_topk', 'topk': 3},
    {'num_epochs': 9},
    {'student': {'widths': (3,)}},
    {'dataset': {'num_labels': 20}},
  ],
)
def test_the_student_is_not_in_its_fingerprint(change, config, digits):
  before = _print_of(config, digits)
  config.update(change)
  assert _print_of(config, digits) == before


def test_a_given_checkpoint_is_taken(config, digits, tmp_path, session, silent):
  trained = _obtain(config, digits, tmp_path / 'a', session)
  config.teacher.checkpoint = str(tmp_path / 'a' / 'teacher')
  loaded = _obtain(config, digits, tmp_path / 'b', session)
  chex.assert_trees_all_equal(trained[1:], loaded[1:])
  assert len(silent.phases) == 1


def test_a_checkpoint_that_is_not_there(config, digits, tmp_path, session):
  config.teacher.checkpoint = str(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match=r'nowhere.* is not a trained network'):
    _obtain(config, digits, tmp_path, session)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('student', {'widths': [99]}, r'config\.teacher\.widths'),
    ('student', {'name': 'resnet8'}, r'config\.teacher\.name'),
    ('dataset', {'name': 'mnist'}, r'config\.dataset\.name'),
    ('dataset', {'dev_fraction': 0.2}, r'config\.dataset\.dev_fraction'),
  ],
)
def test_a_checkpoint_of_something_else(
  key, value, message, config, digits, tmp_path, session, silent
):
  folder = tmp_path / 'other'
  (folder / 'checkpoints').mkdir(parents=True)
  saved = json.loads(teacher.config_of(config).to_json())
  saved[key].update(value)
  (folder / 'config.json').write_text(json.dumps(saved))
  config.teacher.checkpoint = str(folder)
  with pytest.raises(ValueError, match=message):
    _obtain(config, digits, tmp_path, session)


@pytest.mark.parametrize('content', ['{}', '{"stu', '[]', 'null'])
def test_a_checkpoint_with_a_damaged_config(
  content, config, digits, tmp_path, session, silent
):
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / 'config.json').write_text(content)
  config.teacher.checkpoint = str(tmp_path)
  with pytest.raises(ValueError, match=r'config\.json'):
    _obtain(config, digits, tmp_path, session)


def test_a_half_trained_checkpoint_is_refused(
  config, digits, tmp_path, session, interrupted
):
  config.teacher.num_epochs = 4
  with pytest.raises(KeyboardInterrupt):
    _obtain(config, digits, tmp_path, session, interrupted(40))
  config.teacher.checkpoint = str(tmp_path / 'teacher')
  with pytest.raises(ValueError, match='stopped at step 36 of 72'):
    _obtain(config, digits, tmp_path, session)


def test_the_teacher_sees_all_and_never_starts_as_a_student(config):
  own = teacher.config_of(config)
  assert own.dataset.num_labels == 0
  config.teacher.update(config.student.to_dict())
  assert teacher.config_of(config).seed not in range(2**31)


def test_a_damaged_one_in_the_cache_is_put_aside_and_trained_anew(
  config, digits, tmp_path, session, silent
):
  first = _obtain(config, digits, tmp_path / 'a', session)
  (cached,) = (tmp_path / 'cache').iterdir()
  for path in cached.rglob('manifest.json'):
    path.write_text('{')
  with pytest.warns(UserWarning, match=r'put aside: .*manifest\.json'):
    second = _obtain(config, digits, tmp_path / 'b', session)
  assert len(silent.phases) == 2
  chex.assert_trees_all_equal(second[1:], first[1:])
  third = _obtain(config, digits, tmp_path / 'c', session)
  assert len(silent.phases) == 2
  chex.assert_trees_all_equal(third[1:], first[1:])


def test_its_inputs_are_never_mixed(config, digits):
  before = _print_of(config, digits)
  config.dataset.mixup = 0.5
  assert teacher.config_of(config).dataset.mixup == 0
  assert _print_of(config, digits) == before


@pytest.mark.parametrize(
  ('named', 'own'),
  [((), ()), (('student',), ()), (('student', 'teacher'), ('student',))],
)
def test_it_is_split_where_the_teacher_is(named, own, config):
  config.split_networks = named
  assert teacher.config_of(config).split_networks == own


def test_a_given_one_may_be_carried_out_otherwise(
  config, digits, tmp_path, session
):
  trained = _obtain(config, digits, tmp_path / 'a', session)
  config.teacher.checkpoint = str(tmp_path / 'a' / 'teacher')
  config.dataset.num_threads = 2
  config.dataset.mixup = 0.3
  config.model_devices = 2
  loaded = _obtain(config, digits, tmp_path / 'b', session)
  chex.assert_trees_all_equal(loaded[1:], trained[1:])
