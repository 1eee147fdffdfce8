"""How a command starts and ends."""

import sys
from pathlib import Path

import pytest

from kdjax import cli

USAGE = 'How to use it.'

EXPERIMENT = """
from kdjax.config import default


def get_config():
  config = default()
  config.method = 'dkd'
  config.student.widths = (16,)
  {line}
  return config
"""


@pytest.fixture
def experiment(tmp_path):
  """Writes an experiment file with one more line and returns its path."""

  def write(line=''):
    path = tmp_path / 'mine.py'
    path.write_text(EXPERIMENT.format(line=line))
    return path

  return write


def parse(*arguments):
  argv = ['program', *map(str, arguments)]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'argv', argv)  # ml_collections looks there as well
    return cli.parse_config(argv, USAGE)


def ends(main, capsys):
  """The status and the lines on stderr of a command."""
  with pytest.raises(SystemExit) as end:
    cli.run(main)
  return end.value.code, capsys.readouterr().err.splitlines()


def raising(error):
  def main():
    raise error

  return main


@pytest.mark.parametrize(
  'arguments', [('--config={}',), ('--config', '{}')], ids=['equals', 'space']
)
def test_a_file_is_read(arguments, experiment):
  path = experiment()
  config, workdir = parse(*(a.format(path) for a in arguments))
  assert (config.method, config.student.widths) == ('dkd', (16,))
  assert config.temperature == 4.0
  assert config.is_locked
  assert workdir == Path('runs/mine')


def test_the_command_line_comes_last(experiment):
  config, workdir = parse(
    f'--config={experiment()}',
    '--config.temperature=2',
    '--config.method=kd',
    '--config.baseline=true',
    '--config.optimizer.nesterov',
    '--config.student.widths=(32, 8)',
    '--config.dataset.exclude_classes=(3,)',
    '--workdir=/there/it/is',
  )
  assert (config.method, config.temperature) == ('kd', 2.0)
  assert config.baseline is True
  assert config.optimizer.nesterov is True
  assert config.student.widths == (32, 8)
  assert config.dataset.exclude_classes == (3,)
  assert workdir == Path('/there/it/is')


def test_parsing_twice_gives_the_same(experiment):
  path = experiment()
  assert parse(f'--config={path}') == parse(f'--config={path}')


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help(flag, capsys):
  with pytest.raises(SystemExit) as end:
    parse(flag)
  assert end.value.code == 0
  assert capsys.readouterr().out == f'{USAGE}\n'


@pytest.mark.parametrize('arguments', [(), ('--config',), ('--workdir=x',)])
def test_no_experiment(arguments):
  with pytest.raises(ValueError, match=r'--config=experiments/NAME\.py'):
    parse(*arguments)


def test_an_unknown_file_is_answered_with_those_there_are(experiment):
  path = experiment().with_name('yours.py')
  with pytest.raises(ValueError, match=r'no experiment file .*yours.*mine\.py'):
    parse(f'--config={path}')


@pytest.mark.parametrize('form', ['--config=nowhere/a.py', '--config=/'])
def test_an_unknown_folder_and_a_folder(form):
  with pytest.raises(ValueError, match=r'^no experiment file [^;]*$'):
    parse(form)


def test_a_key_before_the_file(experiment):
  config, _ = parse('--config.temperature=2', f'--config={experiment()}')
  assert config.temperature == 2.0


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--config.temprature=2', r"'config\.temprature'.*'config\.temperature'"),
    ('--config.optimizer.momentun=0', r"mean 'config\.optimizer\.momentum'"),
    ('--config.student=3', r"'config\.student'.*'config\.student\.tied'"),
    ('--config.=3', "unknown key 'config.'"),
    ('--config.temperature=hot', 'config.temperature=hot'),
    ('--config.batch_size=2.5', 'config.batch_size=2.5'),
    ('--config.weight=', 'config.weight='),
    ('--config.baseline=maybe', 'config.baseline=maybe'),
    ('--config.temperature', 'config.temperature'),
    ('--wrkdir=x', "'wrkdir'.*workdir"),
    ('stray', 'unexpected arguments: stray'),
  ],
)
def test_a_mistake_on_the_command_line(argument, message, experiment):
  with pytest.raises(ValueError, match=message) as caught:
    parse(f'--config={experiment()}', argument)
  assert 'Traceback' not in str(caught.value)


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('config.temprature = 2.0', 'Did you mean "temperature"'),
    ('config.optimizer.momentun = 0.5', 'Did you mean "momentum"'),
    ("config['zzz'] = 1", 'Key "zzz" does not exist'),
    ("config.num_epochs = 'x'", "'num_epochs'.*'int'"),
    ('config.num_epochs = 2.5', "'num_epochs'.*'int'"),
    ('config.student.widths = 3', "'widths'.*'tuple'"),
  ],
)
def test_a_mistake_in_the_file(line, message, experiment):
  with pytest.raises(ValueError, match=message) as caught:
    parse(f'--config={experiment(line)}')
  text = str(caught.value)
  assert 'Traceback' not in text
  assert 'num_examples' not in text  # not the whole configuration
  assert len(text.splitlines()) == 1


@pytest.mark.parametrize('kind', [ValueError, TypeError, OSError])
def test_a_mistake_is_one_line_and_status_2(kind, capsys):
  main = raising(kind('one\n  and\tanother'))
  assert ends(main, capsys) == (2, ['error: one and another'])


def test_what_was_printed_comes_before_the_mistake(capfd):
  def main():
    print('so far')
    raise ValueError('no further')

  with pytest.raises(SystemExit):
    cli.run(main)
  assert capfd.readouterr() == ('so far\n', 'error: no further\n')


def test_an_interrupted_command(capsys):
  status, lines = ends(raising(KeyboardInterrupt()), capsys)
  assert status == 130
  assert lines == ['stopped: run the same command to go on']


def test_an_error_of_ours_keeps_its_traceback(capsys):
  status, lines = ends(raising(RuntimeError('ours')), capsys)
  assert status == 1
  assert lines[0].startswith('Traceback')
  assert lines[-1] == 'RuntimeError: ours'


def test_a_command_that_works_just_ends(capsys):
  cli.run(lambda: print('done'))
  assert capsys.readouterr() == ('done\n', '')


def test_a_traceback_when_asked_for(capsys, monkeypatch):
  monkeypatch.setenv('KDJAX_TRACEBACK', '1')
  status, lines = ends(raising(ValueError('where')), capsys)
  assert status == 2
  assert lines[0].startswith('Traceback')
  assert lines[-1] == 'error: where'
