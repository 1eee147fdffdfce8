"""Arrays too large to work on at once, memory-mapped or not, in pieces."""

from collections.abc import Callable, Iterator

import numpy as np

# Numbers worked on at once: 16 MB of float32.
_PIECE = 2**22


def pieces(num_rows: int, num_columns: int) -> Iterator[slice]:
  """Yields slices of rows that are read at once, of one size but the last.

  Args:
    num_rows: N.
    num_columns: K.

  Yields:
    Slices that cover 0..N-1 in order.

  >>> list(pieces(3, 10))
  [slice(0, 3, None)]
  """
  size = max(1, _PIECE // max(num_columns, 1))
  for start in range(0, num_rows, size):
    yield slice(start, min(start + size, num_rows))


def spread(num_rows: int, at_most: int) -> slice:
  """Returns a slice of rows, `at_most` of them, evenly over all.

  >>> spread(10, 4)
  slice(0, None, 3)
  """
  return slice(0, None, max(1, -(-num_rows // at_most)))


def fold(
  function: Callable[..., tuple[dict, dict]],
  arrays: tuple[np.ndarray, ...],
  progress: Callable[[int], None],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Applies a function to pieces of arrays, and puts together what it says.

  Args:
    function: maps rows of every array to two dictionaries: what it says of
      each row, and sums over the rows.
    arrays: N rows each, the first `[N, K]`.
    progress: told how many rows are done, piece by piece.

  Returns:
    The values of all rows, and the sums over all, in float64.
  """
  rows, sums = [], {}
  for part in pieces(*arrays[0].shape):
    of_rows, of_piece = function(*(np.asarray(a[part]) for a in arrays))
    rows.append({k: np.asarray(v) for k, v in of_rows.items()})
    for key, value in of_piece.items():
      sums[key] = sums.get(key, 0.0) + np.asarray(value, np.float64)
    progress(part.stop - part.start)
  return {
    key: np.concatenate([row[key] for row in rows]) for key in rows[0]
  }, sums
