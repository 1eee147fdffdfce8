"""Float64 NumPy references of losses on relations, from their definitions.

Nothing here is shared with the code under test.
"""

import numpy as np
import reference


def distances(x):
  x = np.asarray(x, np.float64).reshape(len(x), -1)
  found = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
  return found / found[found > 0].mean() if found.any() else found


def huber(gap):
  size = np.abs(gap)
  return np.where(size <= 1, size**2 / 2, size - 0.5)


def unit(x):
  """Rows at norm 1; a row of zeros stays."""
  norm = np.linalg.norm(x, axis=-1, keepdims=True)
  return x / np.where(norm == 0, 1, norm)


def cosines(x):
  """`[i, j, k]`: of the angle at i between j and k."""
  edges = unit(np.array([[b - a for b in x] for a in x]))
  return np.array([e @ e.T for e in edges])


def rkd_distance(s, t):
  return huber(distances(s) - distances(t)).mean()


def rkd_angle(s, t):
  return huber(cosines(s) - cosines(t)).mean()


def sp(s, t):
  s, t = (unit(f @ f.T) for f in (s.reshape(len(s), -1), t.reshape(len(t), -1)))
  return ((t - s) ** 2).sum() / len(s) ** 2


def pkt(s, t):
  def conditional(x):
    x = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-7)
    k = (x @ x.T + 1) / 2
    return k / k.sum(1, keepdims=True)

  s, t = conditional(s), conditional(t)
  return (t * np.log((t + 1e-7) / (s + 1e-7))).mean()


def cc(s, t):
  gap = np.abs(s - t)
  pairs = [(gap[i] * gap[i + 1]).sum() for i in range(len(gap) - 1)]
  return np.mean(pairs)


def irg(students, teachers):
  s = [distances(x) for x in students]
  t = [distances(x) for x in teachers]
  loss = np.mean([((a - b) ** 2).mean() for a, b in zip(s, t, strict=True)])
  changes = [
    ((s[i + 1] - s[i] - t[i + 1] + t[i]) ** 2).mean() for i in range(len(s) - 1)
  ]
  return loss + (np.mean(changes) if changes else 0)


def attention_relation(s, t, temperature, num_heads):
  found = []
  for a, b in zip(*(np.split(x, num_heads, 1) for x in (s, t)), strict=True):
    a, b = unit(a), unit(b)
    for i in range(len(a)):
      others = np.arange(len(a)) != i
      looks = reference.softmax(b[others] @ b[i], temperature)
      student = reference.log_softmax(a[others] @ a[i], temperature)
      found.append(reference.kl(looks, student))
  return np.mean(found)


def log_partition(v, bank, candidates, temperature):
  scores = [
    m @ a / temperature for a, m in zip(v, bank[candidates], strict=True)
  ]
  return np.log(np.exp(scores).mean() * len(bank))


def crd(s, t, bank_s, bank_t, candidates, log_z, temperature):
  rate = (candidates.shape[1] - 1) / len(bank_s)
  loss = 0.0
  for v, bank, z in ((s, bank_t, log_z[0]), (t, bank_s, log_z[1])):
    for a, row in zip(v, candidates, strict=True):
      p = np.exp(bank[row] @ a / temperature - z)
      h = p / (p + rate)
      loss -= (np.log(h[0]) + np.log(1 - h[1:]).sum()) / len(v)
  return loss


def gradient(function, x, step=1e-6):
  """Central differences; exact to about 1e-9 of the largest entry."""
  x = np.asarray(x, np.float64)
  found = np.zeros_like(x)
  for index in np.ndindex(x.shape):
    at = np.zeros_like(x)
    at[index] = step
    found[index] = (function(x + at) - function(x - at)) / (2 * step)
  return found
