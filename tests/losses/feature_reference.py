"""Float64 NumPy references of the losses on features, and their gradients.

Maps are `[B, H, W, C]`. Nothing here is shared with the code under test.
"""

import math

import numpy as np
import reference


def wave_map(shape, a, b):
  """The golden values' maps, which are `[B, C, H, W]`, with channels last."""
  return reference.wave(shape, a, b).transpose(0, 2, 3, 1)


def average_pool(x, size):
  """Every output one by one, from its window."""
  out = np.zeros((x.shape[0], *size, x.shape[3]))
  for i, j in np.ndindex(*size):
    (top, bottom), (left, right) = (
      (math.floor(n * side / count), math.ceil((n + 1) * side / count))
      for n, side, count in zip((i, j), x.shape[1:3], size, strict=True)
    )
    out[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
  return out


def same_size(s, t):
  size = tuple(np.minimum(s.shape, t.shape)[1:3])
  return average_pool(s, size), average_pool(t, size)


def unit(x, axis):
  norm = np.sqrt((x**2).sum(axis, keepdims=True))
  return x / np.maximum(norm, 1e-12)


def hint(s, t):
  s, t = same_size(s, t)
  return ((s - t) ** 2).mean()


def at(s, t):
  a, b = (unit((x**2).mean(-1).reshape(len(x), -1), 1) for x in same_size(s, t))
  return ((a - b) ** 2).mean()


def nst(s, t):
  """By its three means of kernels, `k(a, b) = (aᵀb)²`."""
  s, t = (unit(x.reshape(len(x), -1, x.shape[-1]), 1) for x in same_size(s, t))

  def mean_kernel(x, y):
    return (np.einsum('bxi,bxj->bij', x, y) ** 2).mean()

  return mean_kernel(t, t) + mean_kernel(s, s) - 2 * mean_kernel(s, t)


def vid(s, t, variance):
  s, t = same_size(s, t)
  return ((s - t) ** 2 / variance + np.log(variance)).mean() / 2


def d_vid_d_variance(s, t, variance):
  """`½ (1/σ² − (μ − f)²/σ⁴)`, averaged; `[C]`."""
  s, t = same_size(s, t)
  errors = ((s - t) ** 2).mean((0, 1, 2))
  return (1 / variance - errors / variance**2) / (2 * s.shape[-1])


def cosine(s, t):
  return (1 - (unit(s, 1) * unit(t, 1)).sum(1)).mean()


def l2(s, t):
  return ((s - t) ** 2).mean()


def gradient(loss, s, t, step=1e-5):
  """Central differences in every entry of the student."""
  out = np.zeros_like(s)
  for index in np.ndindex(*s.shape):
    nudge = np.zeros_like(s)
    nudge[index] = step
    out[index] = (loss(s + nudge, t) - loss(s - nudge, t)) / (2 * step)
  return out
