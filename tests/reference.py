"""Float64 NumPy references: the formulas, in the plainest words there are.

Nothing here is shared with the code under test. Logits may be `-inf`.
"""

import numpy as np


def wave(shape, a, b, scale=1.0):
  """The inputs of the golden values: scale · sin(a · (0, 1, 2, …) + b)."""
  n = np.arange(np.prod(shape, dtype=int))
  return (scale * np.sin(a * n + b)).reshape(shape)


def softmax(logits, temperature=1.0):
  x = np.asarray(logits, np.float64) / temperature
  odds = np.exp(x - x.max(-1, keepdims=True))
  return odds / odds.sum(-1, keepdims=True)


def log_softmax(logits, temperature=1.0):
  x = np.asarray(logits, np.float64) / temperature
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def one_hot(labels, num_classes):
  return np.eye(num_classes)[np.asarray(labels)]


def kl(p, log_q):
  """Σ p (log p − log q), where an entry with p = 0 is left out."""
  with np.errstate(divide='ignore', invalid='ignore'):
    terms = p * (np.log(p) - log_q)
  return np.where(p > 0, terms, 0.0).sum(-1)


def cross_entropy(s, y):
  log_q = log_softmax(s)
  return -np.take_along_axis(log_q, np.asarray(y)[..., None], -1)[..., 0]


def kd(s, t, temperature):
  return temperature**2 * kl(
    softmax(t, temperature), log_softmax(s, temperature)
  )


def distillation(s, rho, y, weight, temperature, power):
  term = kl(rho, log_softmax(s, temperature))
  return (1 - weight) * cross_entropy(s, y) + (
    weight * temperature**power * term
  )


def _split(p, y):
  """p_y, `[..., 1]`, and the other entries, `[..., K-1]`."""
  hot = one_hot(y, p.shape[-1]).astype(bool)
  return p[hot].reshape(*p.shape[:-1], 1), p[~hot].reshape(*p.shape[:-1], -1)


def tckd(s, t, y, temperature):
  log_b = []
  for logits in (t, s):
    true, others = _split(log_softmax(logits, temperature), y)
    rest = np.logaddexp.reduce(others, axis=-1, keepdims=True)
    log_b.append(np.concatenate([true, rest], -1))
  return temperature**2 * kl(np.exp(log_b[0]), log_b[1])


def nckd(s, t, y, temperature):
  (_, others_s), (_, others_t) = _split(s, y), _split(t, y)
  return kd(others_s, others_t, temperature)


def pearson(x, y):
  x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
  return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))


def dist(s, t, beta, gamma, temperature):
  q, p = softmax(s, temperature), softmax(t, temperature)
  inter, intra = 1 - pearson(q, p).mean(), 1 - pearson(q.T, p.T).mean()
  return temperature**2 * (beta * inter + gamma * intra)


def standardise(s):
  return (s - s.mean(-1, keepdims=True)) / s.std(-1, keepdims=True)


def d_cross_entropy(s, y):
  return softmax(s) - one_hot(y, s.shape[-1])


def d_kd(s, t, temperature):
  return temperature * (softmax(s, temperature) - softmax(t, temperature))


def d_distillation(s, rho, y, weight, temperature, power):
  return (1 - weight) * d_cross_entropy(s, y) + weight * temperature ** (
    power - 1
  ) * (softmax(s, temperature) - rho)


def d_tckd(s, t, y, temperature):
  """T · (q_y − p_y) at the label, −T · (q_y − p_y) · q_i / (1 − q_y) off it."""
  q, p = softmax(s, temperature), softmax(t, temperature)
  hot = one_hot(y, s.shape[-1])
  q_y, p_y = (q * hot).sum(-1, keepdims=True), (p * hot).sum(-1, keepdims=True)
  share = hot - (1 - hot) * q / (1 - q_y)
  return temperature * (q_y - p_y) * share


def d_nckd(s, t, y, temperature):
  """T · (q̂ − p̂), and 0 at the label."""
  hot = one_hot(y, s.shape[-1]).astype(bool)
  off = [np.where(hot, -np.inf, logits) for logits in (s, t)]
  return d_kd(*off, temperature)


def d_dist(s, t, beta, gamma, temperature):
  """Chain of dρ/dx = (ŷ − ρ x̂) / ‖x − mean‖ and dq = q (1 − q) / T."""

  def d_pearson(x, y):
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    x, y = x / norm, y / np.linalg.norm(y, axis=-1, keepdims=True)
    return (y - (x * y).sum(-1, keepdims=True) * x) / norm

  q, p = softmax(s, temperature), softmax(t, temperature)
  batch, classes = q.shape
  d_q = -beta * d_pearson(q, p) / batch
  d_q -= gamma * d_pearson(q.T, p.T).T / classes
  d_s = q * (d_q - (q * d_q).sum(-1, keepdims=True)) / temperature
  return temperature**2 * d_s


def d_standardise(s, direction):
  """The z-score's Jacobian, transposed, applied to `direction`."""
  z = standardise(s)
  mean = direction.mean(-1, keepdims=True)
  along = (direction * z).mean(-1, keepdims=True)
  return (direction - mean - along * z) / s.std(-1, keepdims=True)


def pt(p, y):
  true, others = _split(p, y)
  even = others.sum(-1, keepdims=True) / others.shape[-1]
  return np.where(one_hot(y, p.shape[-1]) > 0, true, even)


def sim(weights, y, power, temperature):
  unit = weights / np.linalg.norm(weights, axis=-1, keepdims=True)
  relation = np.maximum(unit @ unit.T, 0) ** power
  return softmax(relation, temperature)[np.asarray(y)]


def pt_sim_conditional(p, rho, y):
  hot = one_hot(y, p.shape[-1])
  p_y = (p * hot).sum(-1, keepdims=True)
  relation = rho * (1 - hot)
  return p * hot + (1 - p_y) * relation / relation.sum(-1, keepdims=True)


def topk(p, k):
  out = np.empty_like(p)
  for index in np.ndindex(p.shape[:-1]):
    row = p[index]
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    rest = order[k:]
    out[index] = row
    if rest:
      out[index][rest] = row[rest].sum() / len(rest)
  return out
