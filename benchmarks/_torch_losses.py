"""Distillation losses in PyTorch, as the published toolboxes compute them.

What they compare to is in `losses.py`. The first argument is the student's;
maps are `[B, C, H, W]`.
"""

import math

import torch
from torch.nn import functional


def cross_entropy(logits, labels):
  """The library's own."""
  return functional.cross_entropy(logits, labels)


def _divergence(student, teacher, temperature):
  return (
    functional.kl_div(
      functional.log_softmax(student / temperature, 1),
      functional.softmax(teacher / temperature, 1),
      reduction='sum',
    )
    * temperature**2
    / len(student)
  )


def kd(student, teacher, labels):
  """The library's divergence of two softmaxes, T = 4."""
  return _divergence(student, teacher, 4.0)


def dkd(student, teacher, labels):
  """With masks of the label; the label leaves a softmax by a −1000."""
  at_label = torch.zeros_like(student).scatter_(1, labels[:, None], 1).bool()
  off_label = torch.ones_like(student).scatter_(1, labels[:, None], 0).bool()

  def binary(logits):
    probs = functional.softmax(logits / 4.0, 1)
    true = (probs * at_label).sum(1, keepdim=True)
    rest = (probs * off_label).sum(1, keepdim=True)
    return torch.cat([true, rest], 1)

  target = functional.kl_div(
    torch.log(binary(student)), binary(teacher), reduction='sum'
  )
  others = functional.kl_div(
    functional.log_softmax(student / 4.0 - 1000.0 * at_label, 1),
    functional.softmax(teacher / 4.0 - 1000.0 * at_label, 1),
    reduction='sum',
  )
  return (target + 8.0 * others) * 4.0**2 / len(student)


def _pearson(a, b):
  a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
  return functional.cosine_similarity(a, b, dim=1, eps=1e-8)


def dist(student, teacher, labels):
  """Cosines of centred rows, and of centred columns."""
  q, p = student.softmax(1), teacher.softmax(1)
  return 2 - _pearson(q, p).mean() - _pearson(q.t(), p.t()).mean()


def hint(student, teacher):
  """The library's mean squared error."""
  return functional.mse_loss(student, teacher)


def _attention(feature_map):
  return functional.normalize(feature_map.pow(2).mean(1).flatten(1))


def at(student, teacher):
  """Normalised attention maps, of one stage."""
  return (_attention(student) - _attention(teacher)).pow(2).mean()


def _kernel(a, b):
  return (a.unsqueeze(1) * b.unsqueeze(2)).sum(-1).pow(2).mean()


def nst(student, teacher):
  """Three kernels, each from all products of two channels at every place."""
  s, t = (functional.normalize(x.flatten(2), dim=2) for x in (student, teacher))
  return _kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t)


def vid(mean, teacher, variance):
  """The Gaussian's terms, of every number of the map."""
  variance = variance.view(1, -1, 1, 1)
  return (0.5 * ((mean - teacher) ** 2 / variance + variance.log())).mean()


def cosine(student, teacher):
  """The library's cosines."""
  return (1 - functional.cosine_similarity(student, teacher)).mean()


def l2(student, teacher):
  """The library's mean squared error."""
  return functional.mse_loss(student, teacher)


def sp(student, teacher):
  """Normalised Gram matrices."""
  s, t = (functional.normalize(x.mm(x.t())) for x in (student, teacher))
  return ((t - s) ** 2).sum() / len(student) ** 2


def _distances(x):
  """From squares and products; the diagonal is set to 0."""
  square = x.pow(2).sum(1)
  between = square.unsqueeze(1) + square.unsqueeze(0) - 2 * x.mm(x.t())
  distances = between.clamp(min=1e-12).sqrt()
  distances = distances.clone()
  distances[range(len(x)), range(len(x))] = 0
  return distances


def _scaled_distances(x):
  distances = _distances(x)
  return distances / distances[distances > 0].mean()


def rkd_distance(student, teacher):
  """Distances over the mean of the positive ones."""
  with torch.no_grad():
    target = _scaled_distances(teacher)
  return functional.smooth_l1_loss(_scaled_distances(student), target)


def _angles(x):
  directions = functional.normalize(x.unsqueeze(0) - x.unsqueeze(1), dim=2)
  return directions.bmm(directions.transpose(1, 2)).view(-1)


def rkd_angle(student, teacher):
  """All B³ angles at once."""
  with torch.no_grad():
    target = _angles(teacher)
  return functional.smooth_l1_loss(_angles(student), target)


def _neighbours(x):
  norm = x.pow(2).sum(1, keepdim=True).sqrt()
  x = x / (norm + 1e-7)
  affinity = (x.mm(x.t()) + 1) / 2
  return affinity / affinity.sum(1, keepdim=True)


def pkt(student, teacher):
  """Cosines as probabilities, and the logarithm of their ratio."""
  s, t = _neighbours(student), _neighbours(teacher)
  return (t * torch.log((t + 1e-7) / (s + 1e-7))).mean()


def cc(student, teacher):
  """Products of the gaps of neighbours."""
  gap = (student - teacher).abs()
  return (gap[:-1] * gap[1:]).sum(1).mean()


def crd(
  student, teacher, candidates, student_bank, teacher_bank, *, log_partition
):
  """Fetches the bank's row of every candidate of every example."""
  size, count = candidates.shape
  share = (count - 1) / len(student_bank)

  def side(embeddings, bank):
    rows = bank.index_select(0, candidates.view(-1)).view(size, count, -1)
    scores = rows.bmm(embeddings.unsqueeze(2)).squeeze(2)
    probs = torch.exp(scores / 0.07) / math.exp(log_partition)
    true, others = probs[:, 0], probs[:, 1:]
    recognised = torch.log(true / (true + share))
    rejected = torch.log(share / (others + share))
    return -(recognised.sum() + rejected.sum()) / size

  return side(student, teacher_bank) + side(teacher, student_bank)


def irg(student, teacher):
  """Edges of two stages, side by side in one array, and their change."""
  edges = [
    [_scaled_distances(stage) for stage in x.chunk(2, dim=1)]
    for x in (student, teacher)
  ]
  (s1, s2), (t1, t2) = edges
  loss = (functional.mse_loss(s1, t1) + functional.mse_loss(s2, t2)) / 2
  return loss + functional.mse_loss(s2 - s1, t2 - t1)


def attention_relation(student, teacher):
  """Masked softmaxes of cosines, T = 0.1, and the library's divergence."""
  itself = torch.eye(len(student), dtype=torch.bool)
  s, t = (
    functional.normalize(x).mm(functional.normalize(x).t()) / 0.1
    for x in (student, teacher)
  )
  return functional.kl_div(
    functional.log_softmax(s.masked_fill(itself, -1e9), 1),
    functional.softmax(t.masked_fill(itself, -1e9), 1),
    reduction='batchmean',
  )
