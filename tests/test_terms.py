"""Each row of the table: what it compares, its weight, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kdjax import config as configuration
from kdjax import losses, methods, models, plans, terms
from kdjax.exchange import Exchange
from kdjax.models import Outputs

B, K, N = 6, 5, 12
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1], np.int32)
POSITIONS = np.array([3, 0, 11, 7, 5, 2], np.int32)
DATA = terms.DataSet(LABELS, K)


def features(shapes):
  return {
    name: RNG.normal(size=(B, *shape)).astype(np.float32)
    for name, shape in shapes.items()
  }


def network(widths, sides):
  """Logits and features of three stages, as a residual network has them."""
  shapes = {'stem': (sides[0], sides[0], widths[0])}
  for i, (width, side) in enumerate(zip(widths, sides, strict=True)):
    shapes[f'stage{i + 1}'] = (side, side, width)
  shapes['pooled'] = (widths[-1],)
  logits = RNG.normal(0, 2, (B, K)).astype(np.float32)
  return Outputs(logits, features(shapes))


STUDENT = network((8, 16, 6), (8, 8, 2))
TEACHER = network((4, 32, 10), (8, 4, 4))


def settings(**changes):
  config = configuration.default()
  config.update({'temperature': 3.0, 'target_weight': 1.5, **changes})
  config.terms.crd.num_negatives = 20
  config.terms.crd.dim = config.terms.cc.dim = 8
  return config


def shapes(outputs):
  return {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype)
    for name, x in outputs.features.items()
  }


def exchange(student=STUDENT, teacher=TEACHER, epoch=5.0):
  return Exchange(
    student=student,
    teacher=teacher,
    class_weights=None,
    labels=jnp.asarray(LABELS[POSITIONS]),
    epoch=jnp.asarray(epoch),
    positions=jnp.asarray(POSITIONS),
    key=jax.random.key(1),
  )


def planned(name, c):
  (term,) = plans.plan([name], c, STUDENT.features, TEACHER.features)
  return term


def build(name, c, student=STUDENT, teacher=TEACHER):
  plan = plans.plan([name], c, student.features, teacher.features)
  return plans.build_aids(
    plan, c, shapes(student), shapes(teacher), DATA, rngs=nnx.Rngs(0)
  )


def value(name, c=None, aids=None, **given):
  c = c or settings()
  aids = build(name, c) if aids is None else aids
  return plans.value(planned(name, c), exchange(**given), c, aids)


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


# --- the published weights and pairs, literally

EVERY = (('stage1', 'stage1'), ('stage2', 'stage2'), ('stage3', 'stage3'))
POOLED = (('pooled', 'pooled'),)
PUBLISHED = {
  'kd': (0.9, ()),
  'dkd': (1.0, ()),
  'dist': (1.0, ()),
  'hint': (100.0, EVERY[1:2]),
  'at': (1000.0, EVERY),
  'nst': (50.0, EVERY),
  'vid': (1.0, EVERY),
  'cosine': (1.0, POOLED),
  'l2': (1.0, POOLED),
  'rkd_distance': (25.0, POOLED),
  'rkd_angle': (50.0, POOLED),
  'sp': (3000.0, EVERY[2:]),
  'pkt': (30000.0, POOLED),
  'cc': (0.02, POOLED),
  'crd': (0.8, POOLED),
  'irg': (1.0, EVERY),
  'attention_relation': (1.0, POOLED),
}


def test_published_weights_and_pairs():
  c = configuration.default()
  assert {
    name: (c.terms[name].weight, planned(name, c).pairs) for name in terms.TERMS
  } == PUBLISHED
  assert set(c.terms) == set(terms.TERMS)


def test_what_else_is_published():
  c = configuration.default().terms
  ramps = {name: block.warmup_epochs for name, block in c.items()}
  assert ramps == {**dict.fromkeys(terms.TERMS, 0), 'dkd': 20}
  assert c.hint.projector == 'conv'
  assert c.cosine.projector == c.l2.projector == 'linear'
  assert c.cc.dim == c.crd.dim == 128
  assert (c.crd.temperature, c.crd.momentum) == (0.07, 0.5)
  assert c.crd.num_negatives == 16384


def test_a_method_of_terms_is_cross_entropy_and_they():
  rows = {n: row for n, row in methods.METHODS.items() if row.terms}
  alone = set(terms.TERMS) - {'kd', 'dkd', 'dist', 'rkd_distance', 'rkd_angle'}
  assert {n: row.terms for n, row in rows.items()} == {
    **{n: (n,) for n in alone},
    'rkd': ('rkd_distance', 'rkd_angle'),
  }
  plain = methods.get('ce').loss(exchange(), settings())
  for row in rows.values():
    np.testing.assert_array_equal(row.loss(exchange(), settings()), plain)


def test_terms_are_those_of_the_method_and_others():
  c = settings(method='rkd', also=('kd', 'crd'))
  assert methods.terms_of(c) == ('rkd_distance', 'rkd_angle', 'kd', 'crd')
  assert methods.terms_of(settings(method='kd')) == ()
  assert methods.needs_teacher(settings(method='ce', also=('at',)))
  assert not methods.needs_teacher(settings(method='ce'))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'also': ('hnit',)}, "unknown term in config.also 'hnit'; .*'hint'"),
    ({'also': ('at', 'at')}, r"also=\('at', 'at'\) .*'kd': each term once"),
    ({'method': 'crd', 'also': ('crd',)}, "'crd'.*each term once"),
    ({'method': 'rkd', 'also': ('rkd_angle',)}, "'rkd'.*each term once"),
    ({'method': 'crdd'}, "unknown method 'crdd'.*'crd'"),
  ],
)
def test_terms_that_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    methods.terms_of(settings(**changes))


# --- values


def by_hand(name, c, aids):
  """Of the published pairs, without its weight."""
  s, t = STUDENT.features, TEACHER.features
  pair = aids[name]['pair1'] if terms.TERMS[name].aid else None
  stages = [f'stage{i}' for i in (1, 2, 3)]
  flat = lambda x: x.mean((1, 2))
  pooled = s['pooled'], t['pooled']

  def vid():
    total = 0.0
    for i, stage in enumerate(stages):
      mean, variance = aids['vid'][f'pair{i + 1}'](s[stage])
      total += losses.vid(mean, t[stage], variance=variance)
    return total

  return {
    'hint': lambda: losses.hint(pair(s['stage2']), t['stage2']),
    'at': lambda: sum(losses.at(s[x], t[x]) for x in stages),
    'nst': lambda: sum(losses.nst(s[x], t[x]) for x in stages),
    'vid': vid,
    'cosine': lambda: losses.cosine(pair(s['pooled']), t['pooled']),
    'l2': lambda: losses.l2(pair(s['pooled']), t['pooled']),
    'rkd_distance': lambda: losses.rkd_distance(*pooled),
    'rkd_angle': lambda: losses.rkd_angle(*pooled),
    'sp': lambda: losses.sp(s['stage3'], t['stage3']),
    'pkt': lambda: losses.pkt(*pooled),
    'cc': lambda: losses.cc(*pair(*pooled)),
    'irg': lambda: losses.irg(
      [flat(s[x]) for x in stages], [flat(t[x]) for x in stages]
    ),
    'attention_relation': lambda: losses.attention_relation(
      *pooled, temperature=0.1, num_heads=1
    ),
    'kd': lambda: losses.kd(STUDENT.logits, TEACHER.logits, temperature=3.0),
    'dkd': lambda: losses.dkd(
      STUDENT.logits,
      TEACHER.logits,
      LABELS[POSITIONS],
      target_weight=1.5,
      nontarget_weight=8.0,
      temperature=3.0,
    ),
    'dist': lambda: np.full(
      B,
      losses.dist(
        STUDENT.logits,
        TEACHER.logits,
        inter_weight=c.inter_weight,
        intra_weight=c.intra_weight,
        temperature=3.0,
      ),
    ),
  }[name]()


@pytest.mark.parametrize('name', [n for n in terms.TERMS if n != 'crd'])
def test_a_term_is_its_weight_times_its_loss(name):
  c = settings()
  c.terms[name].update({'weight': 2.5, 'warmup_epochs': 0})
  aids = build(name, c)
  found = value(name, c, aids)
  close(found, 2.5 * by_hand(name, c, aids))
  assert found.shape == ((B,) if name in ('kd', 'dkd', 'dist') else ())
  assert np.abs(found).max() > 0


@pytest.mark.parametrize(
  ('epoch', 'ramp'), [(0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)]
)
@pytest.mark.parametrize('name', ['kd', 'at', 'l2'])
def test_a_term_ramps_up(name, epoch, ramp):
  c = settings()
  aids = build(name, c)
  whole = value(name, c, aids, epoch=epoch)
  c.terms[name].warmup_epochs = 4
  close(value(name, c, aids, epoch=epoch), ramp * whole)


def test_the_temperature_and_heads_of_an_attention_relation():
  c = settings()
  c.terms.attention_relation.update({'temperature': 0.7, 'num_heads': 2})
  found = value('attention_relation', c)
  s, t = STUDENT.features['pooled'], TEACHER.features['pooled']
  close(found, losses.attention_relation(s, t, temperature=0.7, num_heads=2))
  assert abs(found - value('attention_relation')) > 1e-4


@pytest.mark.parametrize(
  ('name', 'projector'),
  [('hint', 'linear'), ('hint', 'mlp'), ('l2', 'conv'), ('cosine', 'mlp')],
)
def test_another_projector(name, projector):
  c = settings()
  c.terms[name].update({'projector': projector, 'weight': 1.0})
  aids = build(name, c)
  wanted = models.adapters.PROJECTORS[projector]
  assert type(aids[name]['pair1']) is wanted
  close(value(name, c, aids), by_hand(name, c, aids))


def test_identity_compares_features_as_they_are():
  c = settings()
  c.terms.l2.projector = 'identity'
  aids = build('l2', c, teacher=STUDENT)
  found = plans.value(
    planned('l2', c), exchange(teacher=network((8, 16, 6), (8, 8, 2))), c, aids
  )
  assert found > 0
  same = exchange(teacher=STUDENT)
  assert plans.value(planned('l2', c), same, c, aids) == 0


# --- pairs of the user's own


def test_explicit_pairs_of_other_widths_and_resolutions():
  """8×8×16 against 4×4×32, and 8×8×8 against 4×4×10."""
  pairs = ('stage2', 'stage2'), ('stage1', 'stage3')
  s, t = STUDENT.features, TEACHER.features
  for name in ('at', 'nst', 'hint', 'vid'):
    c = settings()
    c.terms[name].update({'weight': 1.0, 'pairs': pairs})
    aids = build(name, c)
    found = value(name, c, aids)
    wanted = 0.0
    for i, (one, other) in enumerate(pairs):
      student, more = s[one], {}
      if name in aids:
        student = aids[name][f'pair{i + 1}'](student)
      if name == 'vid':
        student, more['variance'] = student
      wanted += getattr(losses, name)(student, t[other], **more)
    assert planned(name, c).pairs == pairs
    close(found, wanted)


@pytest.mark.parametrize('name', ['pkt', 'rkd_angle', 'l2', 'cc', 'crd'])
def test_maps_given_to_a_loss_on_embeddings_are_averaged(name):
  c = settings()
  c.terms[name].pairs = (('stage2', 'stage3'),)
  c.terms[name].weight = 1.0
  aids = build(name, c)
  found = value(name, c, aids)
  flat = lambda outputs, stage: outputs._replace(
    features={stage: outputs.features[stage].mean((1, 2))}
  )
  averaged = exchange(flat(STUDENT, 'stage2'), flat(TEACHER, 'stage3'))
  close(found, plans.value(planned(name, c), averaged, c, build(name, c)))


def test_sp_takes_maps_and_embeddings_as_they_are():
  c = settings()
  c.terms.sp.update({'pairs': (('stage1', 'pooled'),), 'weight': 1.0})
  wanted = losses.sp(STUDENT.features['stage1'], TEACHER.features['pooled'])
  close(value('sp', c), wanted)


def test_maps_in_half_precision_are_averaged_in_float32():
  """Around 1 the mean in bfloat16 would lose what sets examples apart."""
  half = jnp.asarray(1 + STUDENT.features['stage1'] / 64, jnp.bfloat16)
  c = settings()
  c.terms.pkt.pairs = (('stage1', 'pooled'),)
  found, wanted = (
    value('pkt', c, student=STUDENT._replace(features={'stage1': feature}))
    for feature in (half, half.astype(jnp.float32))
  )
  close(found, wanted)


def test_only_the_features_of_the_pairs_are_asked_for():
  c = settings()
  c.terms.at.pairs = (('stage1', 'stage2'), ('stage3', 'stage2'))
  names = 'at', 'kd', 'pkt'
  plan = plans.plan(names, c, STUDENT.features, TEACHER.features)
  assert plans.features(plan) == (
    ('stage1', 'stage3', 'pooled'),
    ('stage2', 'pooled'),
  )


def test_stages_are_in_the_order_of_their_numbers():
  names = [f'block{i}' for i in range(12, 0, -1)]
  (at, sp) = plans.plan(['at', 'sp'], settings(), names, names)
  assert at.pairs == tuple((f'block{i}',) * 2 for i in range(1, 13))
  assert sp.pairs == (('block12', 'block12'),)


# --- refusals


@pytest.mark.parametrize('name', ['at', 'nst', 'vid', 'irg'])
def test_other_numbers_of_stages_are_refused(name):
  student = ['hidden1', 'hidden2', 'pooled']
  with pytest.raises(ValueError, match=f'^{name}: ') as caught:
    plans.plan([name], settings(), student, TEACHER.features)
  message = str(caught.value)
  for part in (
    'hidden1, hidden2',
    'stage1, stage2, stage3',
    f'config.terms.{name}.pairs=',
  ):
    assert part in message


def test_no_second_stage_is_refused():
  with pytest.raises(
    ValueError,
    match=r'hint: a second stage is needed: .*has hidden1, the teacher stage1, '
    r'stage2, stage3; give config\.terms\.hint\.pairs=',
  ):
    plans.plan(['hint'], settings(), ['hidden1', 'pooled'], TEACHER.features)


@pytest.mark.parametrize(
  ('name', 'pair', 'parts'),
  [
    ('at', ('pooled', 'stage3'), ['(6, 6)', '(6, 4, 4, 10)', 'maps']),
    ('nst', ('stage1', 'pooled'), ['(6, 8, 8, 8)', '(6, 10)', 'maps']),
    ('hint', ('pooled', 'pooled'), ['(6, 6)', '(6, 10)', 'maps']),
    ('vid', ('pooled', 'pooled'), ['(6, 6)', '(6, 10)', 'maps']),
    ('l2', ('pooled', 'pooled'), ['(6, 6)', '(6, 10)', 'projector']),
    ('cosine', ('stage1', 'stage2'), ['(6, 8, 8, 8)', '(6, 4, 4, 32)']),
  ],
)
def test_features_that_cannot_be_compared(name, pair, parts):
  c = settings()
  c.terms[name].pairs = (pair,)
  if name in ('l2', 'cosine'):
    c.terms[name].projector = 'identity'
  with pytest.raises(ValueError, match=f'^{name} cannot compare') as caught:
    build(name, c)
  message = str(caught.value)
  s, t = pair
  for part in (f'{name} cannot compare {s!r} of the student', repr(t), *parts):
    assert part in message


# --- CRD, which remembers


def crd_of(c=None, aids=None, **given):
  """Its value, and its aid afterwards."""
  c = c or settings()
  aids = build('crd', c) if aids is None else aids
  return value('crd', c, aids, **given), aids['crd']['pair1']


def test_crd_scores_against_the_memory_before_it_moves():
  c = settings()
  c.terms.crd.update({'weight': 3.0, 'temperature': 0.2})
  aid = build('crd', c)['crd']['pair1']
  bank = aid.bank
  banks = bank.student[...][:N], bank.teacher[...][:N]
  rows = aid(STUDENT.features['pooled'], TEACHER.features['pooled'])
  candidates = losses.draw_candidates(
    jax.random.fold_in(jax.random.key(1), 0),
    POSITIONS,
    LABELS[POSITIONS],
    order=bank.order[...],
    starts=bank.starts[...],
    num_negatives=20,
  )
  first = [
    losses.crd_log_partition(x, memory, candidates, temperature=0.2)
    for x, memory in zip(rows, banks[::-1], strict=True)
  ]
  wanted = losses.crd(
    *rows, *banks, candidates, temperature=0.2, log_partition=tuple(first)
  )
  found, aid = crd_of(c)
  close(found, 3.0 * wanted)
  close(aid.bank.log_partition[...], first)


def test_only_the_rows_of_the_batch_move_and_they_are_of_norm_one():
  c = settings()
  c.terms.crd.momentum = 0.25
  before = build('crd', c)['crd']['pair1']
  _, after = crd_of(c)
  rows = before(STUDENT.features['pooled'], TEACHER.features['pooled'])
  others = np.setdiff1d(np.arange(N), POSITIONS)
  for old, new, embedding in zip(
    (before.bank.student[...], before.bank.teacher[...]),
    (after.bank.student[...], after.bank.teacher[...]),
    rows,
    strict=True,
  ):
    np.testing.assert_array_equal(new[others], old[others])
    moved = 0.25 * old[POSITIONS] + 0.75 * embedding
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    close(new[POSITIONS], moved)
    close(np.linalg.norm(new[POSITIONS], axis=1), 1.0)


def test_the_partition_is_of_the_first_batch():
  c = settings()
  aids = build('crd', c)
  _, aid = crd_of(c, aids)
  first = np.asarray(aid.bank.log_partition[...])
  assert (first > 0).all()
  later, _ = crd_of(c, aids, student=network((8, 16, 6), (8, 8, 2)))
  np.testing.assert_array_equal(aid.bank.log_partition[...], first)
  assert np.isfinite(later)


def test_negatives_are_never_of_the_own_class():
  c = settings()
  seen = []

  def noting(*args, **kwargs):
    seen.append(drawn(*args, **kwargs))
    return seen[-1]

  drawn = losses.draw_candidates
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(losses, 'draw_candidates', noting)
    crd_of(c)
  (candidates,) = seen
  assert candidates.shape == (B, 21)
  np.testing.assert_array_equal(candidates[:, 0], POSITIONS)
  negatives = LABELS[np.asarray(candidates[:, 1:])]
  assert (negatives != LABELS[POSITIONS][:, None]).all()
  # Of every example of the other classes there are some.
  assert len(np.unique(candidates[:, 1:])) == N


def test_every_step_draws_other_negatives():
  one, _ = crd_of()
  c = settings()
  x = exchange()._replace(key=jax.random.key(2))
  other = plans.value(planned('crd', c), x, c, build('crd', c))
  assert one != other


def test_a_gradient_reaches_both_maps_and_the_student():
  c = settings()
  graphdef, params, rest = models.split(build('crd', c))

  @jax.jit
  def loss(params, feature, rest):
    student = STUDENT._replace(features={'pooled': feature})
    aids = models.merge(graphdef, params, rest)
    found = plans.value(planned('crd', c), exchange(student), c, aids)
    return found, models.split(aids)[2]

  slope = jax.grad(loss, argnums=(0, 1), has_aux=True)
  args = params, jnp.asarray(STUDENT.features['pooled'])
  # In the first batch Z is set, but it is a constant all the same.
  (maps, feature), moved = slope(*args, rest)
  for gradient in (*jax.tree.leaves(maps), feature):
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 1e-4
  rest['crd']['pair1']['bank']['log_partition'] = moved['crd']['pair1']['bank'][
    'log_partition'
  ]
  (again, _), _ = slope(*args, rest)
  for a, b in zip(jax.tree.leaves(maps), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_two_pairs_have_two_memories_and_draws_of_their_own():
  c = settings()
  c.terms.crd.pairs = (('pooled', 'pooled'), ('stage2', 'stage2'))
  aids = build('crd', c)
  assert set(aids['crd']) == {'pair1', 'pair2'}
  both = value('crd', c, aids)
  alone, _ = crd_of()
  assert np.isfinite(both)
  assert both > alone
