import handmade_records as handmade
import numpy as np
import pytest
from handmade_records import CORRELATION, NONLINEARITY
from matplotlib import image
from matplotlib.colors import to_rgb

from kdjax.study import figures, gains, panels, plots, summary

GRID = handmade.grid({CORRELATION: (0.0, 0.3, 0.9), NONLINEARITY: (1, 2)})
TOPK = [('ce', {}), ('kd', {}), *(('kd_topk', {'topk': k}) for k in (1, 5, 20))]


def _summarised(records):
  rows = summary.summarise(records)
  return rows, panels.looks(row.arm for row in rows)


def _drawn(figure):
  return [axes for axes in figure.axes if axes.get_visible()]


def _lines(axes):
  """Lines that the legend names."""
  return {
    line.get_label(): line
    for line in axes.lines
    if not line.get_label().startswith('_')
  }


def _legend(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


def _ticks(axis):
  return [label.get_text() for label in axis.get_ticklabels()]


def _overlap(texts, figure):
  """Whether any two of these texts meet on the canvas."""
  renderer = figure.canvas.get_renderer()
  boxes = [
    text.get_window_extent(renderer) for text in texts if text.get_text()
  ]
  return any(
    one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[:i]
  )


def test_gain_by_a_number():
  rows, looks = _summarised(handmade.study(GRID))
  figure = gains.by_key(rows, CORRELATION, looks)
  assert figure.get_suptitle() == 'Gain over cross-entropy by correlation'
  shown = _drawn(figure)
  assert [axes.get_title() for axes in shown] == [
    'nonlinearity 1',
    'nonlinearity 2',
  ]
  for axes, nonlinearity in zip(shown, (1, 2), strict=True):
    lines = _lines(axes)
    assert list(lines) == list(looks)[1:]  # all but ce
    for arm, line in lines.items():
      gain = [
        row.gain_over_ce
        for row in rows
        if row.arm == arm and row.scenario[NONLINEARITY] == nonlinearity
      ]
      np.testing.assert_array_equal(line.get_xdata(), [0.0, 0.3, 0.9])
      np.testing.assert_allclose(line.get_ydata(), [100 * g.mean for g in gain])
    band = axes.collections[-1].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(100 * min(g.low for g in gain))
    assert band.max() == pytest.approx(100 * max(g.high for g in gain))
    assert _ticks(axes.xaxis) == ['0', '0.3', '0.9']
  assert _legend(figure) == list(looks)[1:]


def test_numbers_are_sorted_and_wide_ones_on_a_logarithmic_axis():
  scenarios = [{'num_epochs': x} for x in (100, 1, 10)]
  rows, looks = _summarised(handmade.study(scenarios))
  (axes,) = gains.by_key(rows, 'num_epochs', looks).axes
  assert axes.get_xscale() == 'log'
  for line in _lines(axes).values():
    np.testing.assert_array_equal(line.get_xdata(), [1, 10, 100])


def test_gain_by_categories():
  scenarios = handmade.grid(
    {'teacher.widths': ([64], [256], [64, 64]), 'teacher.method': ('ce', 'ls')}
  )
  rows, looks = _summarised(handmade.study(scenarios))
  figure = gains.by_key(rows, 'teacher.widths', looks)
  left, right = _drawn(figure)
  assert left.get_title() == 'method ce'
  assert _ticks(left.xaxis) == ['(64)', '(256)', '(64, 64)']
  bars = {bar.get_label(): bar for bar in right.containers}
  assert list(bars) == list(looks)[1:]
  places = []
  for arm, bar in bars.items():
    gain = [
      row.gain_over_ce
      for row in rows
      if row.arm == arm and row.scenario['teacher.method'] == 'ls'
    ]
    points, _, (sticks,) = bar
    np.testing.assert_allclose(points.get_ydata(), [100 * g.mean for g in gain])
    np.testing.assert_allclose(
      [stick[:, 1] for stick in sticks.get_segments()],
      [(100 * g.low, 100 * g.high) for g in gain],
    )
    places.append(points.get_xdata())
  places = np.array(places)
  np.testing.assert_array_equal(places.round(), [[0, 1, 2]] * len(bars))
  assert len(np.unique(places)) == places.size  # no arm hides another
  assert _legend(figure) == list(looks)[1:]


def test_one_at_a_time_is_compared_where_the_rest_is_equal():
  base = {'a.width': 64, 'a.epochs': 10}
  scenarios = [base, base | {'a.width': 32}, base | {'a.epochs': 20}]
  rows, looks = _summarised(handmade.study(scenarios))
  (axes,) = gains.by_key(rows, 'a.width', looks).axes
  assert axes.get_title() == 'epochs 10'
  for line in _lines(axes).values():
    np.testing.assert_array_equal(line.get_xdata(), [32, 64])


def test_many_panels_are_capped_from_the_first_to_the_last():
  scenarios = handmade.grid({'r': (0, 1), 'm': range(20)})
  arms = [('ce', {}), ('kd', {})]
  rows, looks = _summarised(handmade.study(scenarios, arms=arms, num_seeds=2))
  figure = gains.by_key(rows, 'r', looks)
  titles = [axes.get_title() for axes in _drawn(figure)]
  assert len(titles) == panels.MAX_PANELS
  assert (titles[0], titles[-1]) == ('m 0', 'm 19')
  assert '8 of 20 panels' in figure.get_suptitle()
  few = gains.by_key(rows, 'm', looks)
  assert 'panels' not in few.get_suptitle()


def test_one_seed_has_a_line_without_a_band():
  rows, looks = _summarised(handmade.study(GRID, num_seeds=1))
  figure = gains.by_key(rows, CORRELATION, looks)
  figure.draw_without_rendering()
  assert np.isfinite(_lines(figure.axes[0])['kd'].get_ydata()).all()
  categories = [{'name': x} for x in 'ab']
  rows, looks = _summarised(handmade.study(categories, num_seeds=1))
  gains.by_key(rows, 'name', looks).draw_without_rendering()


def test_what_has_no_data_is_not_drawn():
  rows, looks = _summarised(handmade.study([{CORRELATION: 0.5}]))
  assert gains.by_key(rows, CORRELATION, looks) is None
  assert gains.heat_map(rows) is None
  assert plots.score_by(rows, 'topk', looks) is None
  rows, looks = _summarised(handmade.study(GRID, arms=handmade.ARMS[1:]))
  assert gains.by_key(rows, CORRELATION, looks) is None
  assert gains.heat_map(rows) is None
  short = handmade.records({'ce': [0.5]})
  short[0]['metrics']['curve'] = {'step': [5], 'dev_accuracy': [0.1]}
  assert plots.learning_curves(short, {}) is None
  assert plots.rescaling_factors(short, {}) is None


def _written(axes):
  """What stands in the cells of a heat map, by row and column."""
  table = np.full(axes.images[0].get_array().shape, '', object)
  for text in axes.texts:
    column, row = text.get_position()
    table[row, column] = text.get_text()
  return table


def test_heat_map_of_two_numbers_is_one_per_arm():
  rows, looks = _summarised(handmade.study(GRID))
  figure = gains.heat_map(rows)
  maps = {axes.get_title(): axes for axes in figure.axes if axes.images}
  assert list(maps) == list(looks)[1:]
  assert (figure.get_supxlabel(), figure.get_supylabel()) == (
    'correlation',
    'nonlinearity',
  )
  by_cell = {
    (row.arm, row.scenario[NONLINEARITY], row.scenario[CORRELATION]): row
    for row in rows
  }
  for arm, axes in maps.items():
    cells = [[by_cell[arm, m, r] for r in (0.0, 0.3, 0.9)] for m in (1, 2)]
    gain = [[100 * x.gain_over_ce.mean for x in line] for line in cells]
    np.testing.assert_allclose(axes.images[0].get_array(), gain)
    low, high = axes.images[0].get_clim()
    assert low == -high < 0
    for line, texts in zip(gain, _written(axes), strict=True):
      for x, text in zip(line, texts, strict=True):
        assert float(text.replace('−', '-')) == pytest.approx(x, abs=0.0501)
    bold = {t.get_position() for t in axes.texts if t.get_weight() == 'bold'}
    assert bold == {
      (j, i)
      for i, line in enumerate(cells)
      for j, x in enumerate(line)
      if x.significant
    }
  assert any(row.significant for row in rows)


def test_heat_map_of_arms_and_scenarios():
  scenarios = [{'t.name': x, 't.epochs': 3} for x in ('small', 'large')]
  rows, looks = _summarised(handmade.study(scenarios))
  rows = [
    row for row in rows if (row.arm, row.scenario) != ('ls', scenarios[1])
  ]
  axes = gains.heat_map(rows).axes[0]
  assert _ticks(axes.xaxis) == ['name small, epochs 3', 'name large, epochs 3']
  assert _ticks(axes.yaxis) == list(looks)[1:]
  written = _written(axes)
  assert written[0, 1] == ''
  assert axes.images[0].get_array().mask.sum() == 1
  gain = next(row for row in rows if row.arm == 'kd').gain_over_ce.mean
  assert written[1, 0] == f'{100 * gain:+.1f}'


def test_a_failure_does_not_wash_out_the_colours():
  def gain(scenario, place):
    return -0.35 if (place, scenario['r']) == (1, 1) else 0.01

  rows, _ = _summarised(handmade.study([{'r': 0}, {'r': 1}], gain=gain))
  axes = gains.heat_map(rows).axes[0]
  assert axes.images[0].get_clim()[1] < 5


def test_accuracy_by_what_is_fixed():
  rows, looks = _summarised(handmade.study([{'r': 0.1}, {'r': 0.2}], arms=TOPK))
  figure = plots.score_by(rows, 'topk', looks)
  assert figure.get_suptitle() == 'Test accuracy by topk'
  assert [axes.get_title() for axes in figure.axes] == ['r 0.1', 'r 0.2']
  axes = figure.axes[1]
  assert axes.get_xscale() == 'log'
  tests = {row.arm: row.test for row in rows if row.scenario['r'] == 0.2}
  lines = _lines(axes)
  assert list(lines) == ['ce', 'kd', 'kd_topk']
  np.testing.assert_array_equal(lines['kd_topk'].get_xdata(), [1, 5, 20])
  np.testing.assert_allclose(
    lines['kd_topk'].get_ydata(),
    [100 * tests[f'kd_topk topk={k}'].mean for k in (1, 5, 20)],
  )
  for arm in ('ce', 'kd'):
    np.testing.assert_allclose(
      lines[arm].get_ydata(), [100 * tests[arm].mean] * 2
    )
  band = axes.patches[0].get_window_extent()
  low, high = axes.transData.inverted().transform(band)[:, 1]
  mean, std, _ = tests['ce']
  assert (low, high) == pytest.approx((100 * (mean - std), 100 * (mean + std)))


def test_a_line_keeps_the_rest_fixed():
  arms = [
    ('kd_topk', {'topk': k, 'weight': weight})
    for weight in (0.5, 0.9)
    for k in (2, 3)
  ]
  rows, looks = _summarised(
    handmade.study([{}], arms=[*arms, ('kd_sim', {'topk': 2})])
  )
  (axes,) = plots.score_by(rows, 'topk', looks).axes
  assert axes.get_xscale() == 'linear'
  assert list(_lines(axes)) == [
    'kd_sim topk=2',
    'kd_topk weight=0.5',
    'kd_topk weight=0.9',
  ]


def test_learning_curves_are_means_over_seeds():
  records = handmade.study([{'r': 0.1}, {'r': 0.2}], num_evals=12)
  _, looks = _summarised(records)
  figure = plots.learning_curves(records, looks)
  assert [axes.get_title() for axes in figure.axes] == ['r 0.1', 'r 0.2']
  axes = figure.axes[0]
  assert list(_lines(axes)) == list(looks)
  curves = [
    record['metrics']['curve']
    for record in records
    if (record['arm'], record['scenario']['r']) == ('kd_pt', 0.1)
  ]
  values = 100 * np.array([curve['dev_accuracy'] for curve in curves])
  line = _lines(axes)['kd_pt']
  np.testing.assert_array_equal(line.get_xdata(), curves[0]['step'])
  np.testing.assert_allclose(line.get_ydata(), values.mean(0))
  band = axes.collections[3].get_paths()[0].vertices[:, 1]
  std = values.std(0, ddof=1)
  assert band.max() == pytest.approx((values.mean(0) + std).max())
  assert band.min() == pytest.approx((values.mean(0) - std).min())


def test_a_curve_that_ends_early_counts_while_it_lasts():
  records = handmade.records({'ce': [0.4, 0.6]})
  records[1]['metrics']['curve'] = {'step': [100], 'dev_accuracy': [0.4]}
  figure = plots.learning_curves(records, panels.looks(['ce']))
  (line,) = _lines(figure.axes[0]).values()
  np.testing.assert_allclose(line.get_ydata(), [30, 40])


def _factors(*values):
  return dict(zip(('5', '25', '50', '75', '95'), values, strict=True))


def _rescaled(*tables):
  """One arm, a student per table of percentiles."""
  records = handmade.records({'kd': [0.5] * len(tables), 'ce': [0.5]})
  for record, table in zip(records, tables, strict=False):
    record['metrics']['rescaling_factor'] = table
  return plots.rescaling_factors(records, panels.looks(['kd', 'ce']))


def test_rescaling_factors_are_boxes_of_mean_percentiles():
  figure = _rescaled(
    _factors(-0.2, 0.3, 0.8, 1.1, 2), _factors(0, 0.5, 1, 1.3, 3)
  )
  (axes,) = figure.axes
  assert _ticks(axes.xaxis) == ['kd']  # ce has none
  assert axes.get_yscale() == 'linear'
  (box,) = axes.patches
  heights = np.unique(box.get_path().vertices[:, 1])
  np.testing.assert_allclose(heights, [0.4, 1.2])
  points = np.unique(
    np.concatenate([line.get_ydata() for line in axes.lines]).round(9)
  )
  np.testing.assert_allclose(points, [-0.1, 0.4, 0.9, 1, 1.2, 2.5])
  assert _legend(figure) == ['cross-entropy: w = 1']


@pytest.mark.parametrize(
  ('factors', 'scale'),
  [
    ((0.001, 0.1, 0.5, 0.8, 1), 'log'),
    ((0.1, 0.2, 0.5, 0.8, 9), 'linear'),
    ((-9, 0.2, 0.5, 0.8, 1), 'linear'),
    ((-349, 0.2, 0.5, 0.8, 1), 'symlog'),
    ((0.9, 1, 2, 3, 50), 'symlog'),
  ],
)
def test_the_axis_of_factors_shows_their_bulk(factors, scale):
  figure = _rescaled(_factors(*factors))
  (axes,) = figure.axes
  assert axes.get_yscale() == scale
  low, high = axes.get_ylim()
  assert low <= min(factors) < max(1, *factors) <= high
  assert ('beyond ±2' in figure.get_supylabel()) == (scale == 'symlog')


def test_arms_look_the_same_everywhere_and_unlike_each_other():
  looks = panels.looks([f'arm {i}' for i in range(40)])
  assert len({str(look) for look in looks.values()}) == 40
  first = list(looks.values())[:11]
  assert len({look['color'] for look in first}) == 11
  assert len({look['marker'] for look in first}) == 11
  lightness = [
    np.dot(to_rgb(look['color']), (0.299, 0.587, 0.114)) for look in first
  ]
  assert max(lightness) < 0.75  # seen on white
  rows, looks = _summarised(handmade.study(GRID))
  records = handmade.study(GRID)
  for figure in (
    gains.by_key(rows, CORRELATION, looks),
    plots.learning_curves(records, looks),
  ):
    for arm, line in _lines(figure.axes[0]).items():
      assert line.get_color() == looks[arm]['color']
      assert line.get_marker() == looks[arm]['marker']


def test_labels_do_not_overlap_with_ten_arms_of_long_names():
  arms = [('ce', {}), *(('kd_pt_sim_conditional', {'k': k}) for k in range(9))]
  records = handmade.study(GRID, arms=arms, num_seeds=2)
  rows, looks = _summarised(records)
  for figure in (
    gains.by_key(rows, CORRELATION, looks),
    plots.rescaling_factors(records, looks),
    plots.learning_curves(records, looks),
  ):
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    for axes in _drawn(figure):
      assert not axes.get_tightbbox().overlaps(box)
      labels = axes.xaxis.get_ticklabels()
      if axes.xaxis.get_tick_params()['labelbottom']:
        assert not _overlap(labels, figure)


def test_ticks_that_are_close_are_not_all_labelled():
  arms = [('ce', {}), *(('kd_topk', {'topk': k}) for k in range(1, 51))]
  rows, looks = _summarised(handmade.study([{}], arms=arms, num_seeds=2))
  figure = plots.score_by(rows, 'topk', looks)
  figure.draw_without_rendering()
  (axes,) = figure.axes
  assert len(axes.get_xticks()) == 50
  assert _ticks(axes.xaxis)[0] == '1'
  assert not _overlap(axes.xaxis.get_ticklabels(), figure)


def test_files(tmp_path):
  scenarios = handmade.grid({CORRELATION: (0.0, 0.9)})
  arms = [*TOPK, ('kd_sim', {})]
  records = handmade.study(scenarios, arms=arms, num_seeds=2)
  search = handmade.record('kd', phase='search')
  search['metrics'] = {'dev_accuracy': 0.5}
  rows = summary.summarise(records)
  folder = tmp_path / 'run' / 'figures'
  paths = figures.draw([search, *records], rows, folder)
  assert [path.name for path in paths] == [
    'gain_over_ce_by_correlation.png',
    'accuracy_by_topk.png',
    'gain_heatmap.png',
    'learning_curves.png',
    'rescaling_factors.png',
  ]
  assert set(folder.iterdir()) == set(paths)  # nothing half written
  for path in paths:
    assert path.read_bytes().startswith(b'\x89PNG\r\n')
    height, width, _ = image.imread(path).shape
    assert min(height, width) > 400
  content = [path.read_bytes() for path in paths[:2]]
  figures.draw(records, rows, folder)
  assert [path.read_bytes() for path in paths[:2]] == content


def test_figures_of_before_are_removed_and_no_other_files(tmp_path):
  for name in ('accuracy_by_topk', 'gain_heatmap', 'mine'):
    (tmp_path / f'{name}.png').write_bytes(b'old')
  assert figures.draw([], [], tmp_path) == []
  assert [path.name for path in tmp_path.iterdir()] == ['mine.png']


def test_a_figure_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='file'):
    figures.draw([], [], tmp_path / 'file')


def _text_study(scenarios, **options):
  return [handmade.of_text(x) for x in handmade.study(scenarios, **options)]


def test_figures_of_a_text():
  records = _text_study([{'r': 0.1}, {'r': 0.9}])
  rows, looks = _summarised(records)
  (first, _) = gains.by_key(rows, 'r', looks).axes[:1] * 2
  row = next(row for row in rows if row.arm == 'kd')
  (line,) = [x for x in first.get_lines() if x.get_label() == 'kd']
  wanted = [
    100 * -np.expm1(-x.gain_over_ce.mean) for x in rows if x.arm == row.arm
  ]
  np.testing.assert_allclose(line.get_ydata(), wanted)
  figure = gains.by_key(rows, 'r', looks)
  assert '% of its perplexity' in figure.get_supylabel()
  curves = plots.learning_curves(records, looks)
  assert curves.get_supylabel() == 'dev perplexity, ± one std'
  (line,) = [x for x in curves.axes[0].get_lines() if x.get_label() == row.arm]
  ends = [
    x['metrics']['curve']['dev_perplexity'][-1]
    for x in records
    if x['arm'] == row.arm and x['scenario'] == {'r': 0.1}
  ]
  assert line.get_ydata()[-1] == pytest.approx(np.mean(ends))


def test_perplexity_by_what_is_fixed(tmp_path):
  rows, looks = _summarised(_text_study([{}], arms=TOPK))
  figure = plots.score_by(rows, 'topk', looks)
  assert figure.get_suptitle() == 'Test perplexity by topk'
  assert figure.get_supylabel() == 'test perplexity, ± one std'
  records = _text_study([{}], arms=TOPK, num_evals=1)
  names = [path.name for path in figures.draw(records, rows, tmp_path)]
  assert 'perplexity_by_topk.png' in names
  assert not any('accuracy' in name for name in names)


def test_perplexities_that_are_no_numbers_are_left_out(tmp_path):
  """Of one arm in one scenario, then of all students."""
  for arms in (['kd'], [name for name, _ in handmade.ARMS]):
    records = _text_study([{'r': 0.1}, {'r': 0.9}])
    for student in records:
      if student['arm'] in arms:
        metrics = student['metrics']
        for key in ('dev', 'test'):
          metrics[f'{key}_perplexity'] = None
          metrics[f'{key}_cross_entropy'] = None
        metrics['best'] |= {'dev_perplexity': None, 'test_perplexity': None}
        metrics['curve']['dev_perplexity'] = [None, None]
    rows, _ = _summarised(records)
    assert figures.draw(records, rows, tmp_path)
