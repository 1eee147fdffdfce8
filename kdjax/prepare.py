"""Makes a data set ready: `python -m kdjax.prepare --dataset=NAME`."""

import argparse
import time

from kdjax import cli, data


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m kdjax.prepare',
    description='Checks the files of a data set and writes them as records.',
  )
  parser.add_argument(
    '--dataset',
    required=True,
    metavar='NAME',
    help=f'one of {", ".join(data.DATASETS)}; npz needs no preparing',
  )
  parser.add_argument(
    '--manual_dir',
    default='',
    metavar='DIR',
    help='folder with the files placed by hand; without it they are downloaded;'
    ' for text_file, the file or folder of the text',
  )
  parser.add_argument(
    '--data_dir',
    default='',
    metavar='DIR',
    help='where the records go (TFDS_DATA_DIR or ~/tensorflow_datasets)',
  )
  return parser.parse_args()


def main() -> None:
  """Parses the command line, prepares, and says what was done."""
  arguments = _arguments()
  start = time.monotonic()
  prepared = data.prepare(
    arguments.dataset,
    data_dir=arguments.data_dir,
    manual_dir=arguments.manual_dir,
  )
  seconds = time.monotonic() - start
  counts = ', '.join(
    f'{count} {split}' for split, count in prepared.num_examples.items()
  )
  size = prepared.vocabulary_size
  what = f'tokens, vocabulary {size},' if size else 'examples'
  done = 'was already prepared' if prepared.was_prepared else 'prepared'
  print(
    f'{arguments.dataset} {done}: {counts} {what} in {prepared.folder}'
    f' ({seconds:.1f} s)'
  )


if __name__ == '__main__':
  cli.run(main)
