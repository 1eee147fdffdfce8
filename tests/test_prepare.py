"""The command; what it does to files is tested in tests/data."""

import pathlib
import re
import subprocess
import sys

import pytest

from kdjax import data, prepare

DEBIAN = pathlib.Path('/usr/share/datasets/fashion-mnist')


@pytest.fixture(autouse=True)
def _private_tmp(tmp_path_factory, monkeypatch):
  """TFDS leaves an empty folder for every builder that is not prepared."""
  monkeypatch.setenv('TMPDIR', str(tmp_path_factory.getbasetemp()))


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'kdjax.prepare', *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


def mistake(done):
  """The last line of what a failed command says."""
  assert done.returncode == 2
  assert 'Traceback' not in done.stderr
  return done.stderr.strip().splitlines()[-1]


def test_prepares_once(tmp_path):
  first = run('--dataset=digits', f'--data_dir={tmp_path}')
  assert (first.returncode, first.stderr) == (0, '')
  folder = tmp_path / 'digits/1.0.0'
  counts = '1297 train, 500 test examples'
  assert re.fullmatch(
    rf'digits prepared: {counts} in {folder} \(\d+\.\d s\)\n', first.stdout
  )
  again = run('--dataset=digits', f'--data_dir={tmp_path}')
  assert again.returncode == 0
  assert f'digits was already prepared: {counts} in {folder}' in again.stdout


def test_an_unknown_data_set(tmp_path):
  line = mistake(run('--dataset=fashion-mnist', f'--data_dir={tmp_path}'))
  assert "did you mean 'fashion_mnist'?" in line
  assert not any(tmp_path.iterdir())


def test_no_data_set():
  assert '--dataset' in mistake(run())


def test_an_unknown_flag():
  assert '--manual' in mistake(run('--dataset=digits', '--manuals=x'))


def test_a_missing_folder(tmp_path):
  line = mistake(
    run(
      '--dataset=cifar100',
      f'--data_dir={tmp_path}',
      f'--manual_dir={tmp_path / "nowhere"}',
    )
  )
  assert f'no folder {tmp_path / "nowhere"}' in line
  assert 'cifar-100-binary.tar.gz (from http' in line


def test_missing_files_and_a_corrupted_one(tmp_path):
  files = tmp_path / 'files'
  files.mkdir()
  arguments = (
    '--dataset=cifar10',
    f'--data_dir={tmp_path}',
    f'--manual_dir={files}',
  )
  assert 'lacks cifar-10-binary.tar.gz' in mistake(run(*arguments))
  (files / 'cifar-10-binary.tar.gz').write_bytes(b'not the archive')
  line = mistake(run(*arguments))
  assert f'{files}/cifar-10-binary.tar.gz is not the published file' in line
  assert not list(tmp_path.rglob('*.array_record*'))


def test_imagenet_names_the_archive_that_is_wrong(tmp_path):
  files = tmp_path / 'files'
  files.mkdir()
  arguments = (
    '--dataset=imagenet2012',
    f'--data_dir={tmp_path}',
    f'--manual_dir={files}',
  )
  assert 'lacks ILSVRC2012_img_train.tar' in mistake(run(*arguments))
  for name in ('train', 'val'):
    (files / f'ILSVRC2012_img_{name}.tar').write_bytes(bytes(10240))
  line = mistake(run(*arguments))
  assert 'ILSVRC2012_img_train.tar is not the published file' in line


def test_damage_to_what_is_prepared_is_found(tmp_path):
  arguments = ('--dataset=digits', f'--data_dir={tmp_path}')
  assert run(*arguments).returncode == 0
  (path,) = tmp_path.rglob('*test.array_record*')
  content = bytearray(path.read_bytes())
  content[-100] ^= 1
  path.write_bytes(content)
  line = mistake(run(*arguments))
  assert f'{path} is not what was prepared' in line


def test_a_text_is_counted_in_tokens(tmp_path):
  path = tmp_path / 'mine.txt'
  path.write_text('one two\n' * 10)
  arguments = (
    '--dataset=text_file',
    f'--data_dir={tmp_path / "root"}',
    f'--manual_dir={path}',
  )
  done = run(*arguments)
  assert (done.returncode, done.stderr) == (0, '')
  counts = '24 train, 3 dev, 3 test tokens, vocabulary 3'
  assert f'text_file prepared: {counts}, in {tmp_path}' in done.stdout
  assert f'was already prepared: {counts}, in' in run(*arguments).stdout


def test_texts_that_are_not_there(tmp_path):
  line = mistake(run('--dataset=text_file', f'--data_dir={tmp_path}'))
  assert line.endswith('or by --manual_dir of kdjax.prepare')
  (tmp_path / 'ptb.train.txt').write_text('a\n')
  line = mistake(
    run(
      '--dataset=penn_treebank',
      f'--data_dir={tmp_path / "root"}',
      f'--manual_dir={tmp_path}',
    )
  )
  assert f'{tmp_path} lacks ptb.valid.txt, ptb.test.txt: it' in line
  assert line.endswith('and holds ptb.train.txt')


def test_main_passes_its_flags_on(monkeypatch, capsys):
  given = {}

  def fake(name, **arguments):
    given.update(arguments, name=name)
    return data.Prepared('/there', {'train': 3, 'test': 2}, was_prepared=False)

  monkeypatch.setattr(data, 'prepare', fake)
  monkeypatch.setattr(
    sys,
    'argv',
    ['prepare', '--dataset=mnist', '--manual_dir=a', '--data_dir=b'],
  )
  prepare.main()
  assert given == {'name': 'mnist', 'manual_dir': 'a', 'data_dir': 'b'}
  assert 'mnist prepared: 3 train, 2 test examples in /there' in (
    capsys.readouterr().out
  )


@pytest.mark.skipif(
  not DEBIAN.is_dir(), reason='needs the package dataset-fashion-mnist'
)
def test_the_files_of_debian(tmp_path):
  done = run(
    '--dataset=fashion_mnist',
    f'--manual_dir={DEBIAN}',
    f'--data_dir={tmp_path}',
  )
  assert (done.returncode, done.stderr) == (0, '')
  assert 'prepared: 60000 train, 10000 test examples' in done.stdout
  fashion = data.load('fashion_mnist', data_dir=str(tmp_path))
  assert fashion.train.inputs.shape == (54_000, 28, 28, 1)
  assert fashion.class_names[0] == 'T-shirt/top'
  pixels = fashion.train.inputs / 255.0
  assert pixels.mean() == pytest.approx(fashion.mean[0], abs=1e-3)
  assert pixels.std() == pytest.approx(fashion.std[0], abs=1e-3)
