"""Data sets for language models, from files to rows."""

import dataclasses
import shutil

import numpy as np
import pytest
import texts
import tokenizers
from tokenizers import models, pre_tokenizers

from kdjax import data
from kdjax.data import manifest

NAMES = ('penn_treebank', 'wikitext2')
BATCHINGS = ('contiguous', 'padded', 'packed')


@pytest.fixture(autouse=True)
def _private_root(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'default'))


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """A data_dir in which both data sets of files are prepared."""
  folder = tmp_path_factory.mktemp('texts')
  for name in NAMES:
    texts.prepare(texts.write(folder / f'{name}_files', name), folder, name)
  return folder


@pytest.fixture
def own(prepared, tmp_path):
  """A copy of the first that a test may spoil, without its cache."""
  root = shutil.copytree(prepared, tmp_path / 'own')
  folder = root / 'penn_treebank/1.0.0'
  (folder / 'kdjax_word.npz').unlink()
  return folder


def load(root, name='penn_treebank', **text):
  return data.load(
    name, data_dir=str(root), text={'sequence_length': 4, **text}
  )


def mine(path, content=None, *, dev_fraction=0.1, **text):
  if content is not None:
    path.write_text(content, encoding='utf-8')
  return data.load(
    'text_file',
    data_dir=str(path),
    dev_fraction=dev_fraction,
    text={'sequence_length': 4, **text},
  )


def test_their_names():
  found = {name for name in data.names() if data.is_text(name)}
  assert found == {*NAMES, 'text_file', 'python_docs'}
  assert not data.is_text('no such name')


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('batching', BATCHINGS)
def test_every_token_is_predicted_once(prepared, name, batching):
  found = load(prepared, name, batching=batching)
  known = {word for words in texts.SENTENCES['train'] for word in words}
  for split, sentences in texts.SENTENCES.items():
    words = [
      word if word in known else '<unk>'
      for sentence in sentences
      for word in sentence
    ]
    labels = texts.labels_of(found, split)
    characters = sum(len(' '.join(sentence[:-1])) + 1 for sentence in sentences)
    if batching == 'contiguous':
      assert labels == words[1:]
      # The first word is only read.
      characters -= len(sentences[0][0]) + 1
      assert found.class_names[getattr(found, split).inputs[0, 0]] == words[0]
    else:
      assert sorted(labels) == sorted(words)
    assert found.text.num_characters[split] == characters


def test_a_padded_row_is_a_sentence(prepared):
  found = load(prepared, batching='padded', sequence_length=8)
  for split, sentences in texts.SENTENCES.items():
    rows = getattr(found, split)
    for inputs, labels, sentence in zip(*rows[:2], sentences, strict=True):
      known = [x if x in found.class_names else '<unk>' for x in sentence]
      real = labels != data.PADDING
      assert texts.spelled(found, labels[real]) == known
      assert texts.spelled(found, inputs[real]) == ['<eos>', *known[:-1]]


@pytest.mark.parametrize('batching', BATCHINGS)
def test_what_a_data_set_says_of_itself(prepared, batching):
  found = load(prepared, batching=batching)
  assert found.num_classes == len(found.class_names) == 8
  assert found.class_names[:4] == ('the', '<eos>', 'sat', '<unk>')
  assert found.class_names[4:] == ('cat', 'dog', 'end', 'on')
  assert (found.mean, found.std) == ((0.0,), (1.0,))
  assert (found.groups, found.input_shape) == (None, (4,))
  assert found.text.batching == batching
  boundary = None if batching == 'contiguous' else 1
  assert found.text.boundary == boundary
  labels = texts.labels_of(found, 'train')
  assert found.text.token_counts.tolist() == [
    labels.count(name) for name in found.class_names
  ]
  for split in (found.train, found.dev, found.test):
    assert (split.inputs.dtype, split.labels.dtype) == (np.int32, np.int32)
    assert split.inputs.shape == split.labels.shape
    assert split.ids.tolist() == list(range(len(split.labels)))
    assert split.inputs.min() >= 0
    assert split.inputs.max() < found.num_classes
    blank = split.inputs[split.labels == data.PADDING]
    assert (blank == found.class_names.index('<eos>')).all()


def test_defaults(prepared):
  found = data.load('penn_treebank', data_dir=str(prepared))
  assert found.input_shape == (35,)
  assert found.text.batching == 'contiguous'


def test_other_data_sets_ignore_the_key(root):
  digits = data.load('digits', data_dir=str(root), text={'no': 'matter'})
  assert digits.text is None


def test_a_smaller_vocabulary(prepared):
  found = load(prepared, vocabulary_size=4)
  assert found.class_names == ('<unk>', 'the', '<eos>', 'sat')
  assert texts.labels_of(found, 'dev')[:4] == ['<unk>', 'sat', '<eos>', '<unk>']
  assert found.text.num_characters == load(prepared).text.num_characters


def test_characters_of_any_text(prepared):
  found = load(prepared, tokens='char', batching='padded')
  assert sorted(texts.labels_of(found, 'dev')) == sorted(texts.TEXTS['dev'])
  assert found.class_names[found.text.boundary] == '\n'
  assert found.text.num_characters['dev'] == len(texts.TEXTS['dev'])


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ({'batchin': 'padded'}, r"unknown key '.*text\.batchin'; did .*batching'"),
    ({'batching': 'none'}, r"text\.batching='none' must be one of contiguous,"),
    ({'sequence_length': 0}, r'text\.sequence_length=0 must lie in 1\.\.'),
    ({'sequence_length': True}, r'length=True must be a whole number'),
    ({'vocabulary_size': -1}, r'text\.vocabulary_size=-1 must be 0, for all'),
    ({'vocabulary_size': 2}, r'text\.vocabulary_size=2 must be 0, for all'),
    ({'vocabulary_size': 1e4}, r'size=10000\.0 must be a whole number'),
    ({'tokens': 'letters'}, r"text\.tokens='letters' must be 'word', 'char'"),
    ({'tokens': 3}, r'text\.tokens=3 must be text'),
  ],
)
def test_wrong_settings(prepared, text, message):
  with pytest.raises(ValueError, match=message) as error:
    load(prepared, **text)
  assert 'config.dataset.text.' in str(error.value)


def test_no_options(prepared):
  with pytest.raises(ValueError, match="'penn_treebank' takes no options"):
    data.load('penn_treebank', data_dir=str(prepared), options={'seed': 1})


def test_each_setting_is_in_the_fingerprint(prepared):
  prints = {
    load(prepared, **text).fingerprint()
    for text in (
      {},
      {'batching': 'padded'},
      {'batching': 'packed'},
      {'sequence_length': 5},
      {'tokens': 'char'},
      {'vocabulary_size': 5},
    )
  }
  assert len(prints) == 6
  assert load(prepared).fingerprint() in prints


def test_all_that_is_known_is_in_the_fingerprint(prepared):
  found = load(prepared)
  changed = [
    {'class_names': found.class_names[::-1]},
    *(
      {'text': dataclasses.replace(found.text, **{key: value})}
      for key, value in (
        ('batching', 'packed'),
        ('boundary', 0),
        ('num_characters', {'train': 1, 'dev': 1, 'test': 1}),
        ('token_counts', found.text.token_counts + 1),
      )
    ),
  ]
  for change in changed:
    other = dataclasses.replace(found, **change)
    assert other.fingerprint() != found.fingerprint()


def test_a_word_that_train_does_not_have(tmp_path):
  folder = texts.write(tmp_path / 'files', train='the cat\nsat\n')
  (folder / 'ptb.valid.txt').write_text('the cat\n\nsat down\n')
  message = r"ptb\.valid\.txt, line 3: 'down', in the dev text, .* no '<unk>'"
  with pytest.raises(ValueError, match=message):
    texts.prepare(folder, tmp_path / 'root')
  assert not list(tmp_path.rglob('*.array_record*'))
  texts.write(folder, train='the cat\nsat down on\nend sad')
  (folder / 'ptb.valid.txt').write_text('the cat\n\nsat down\n')
  assert texts.prepare(folder, tmp_path / 'root').num_examples['dev'] == 7


def test_files_of_another_data_set(tmp_path):
  folder = texts.write(tmp_path / 'files', 'wikitext2')
  message = r'lacks ptb\.train\.txt.*and holds wiki\.test\.tokens, wiki\.train'
  with pytest.raises(FileNotFoundError, match=message):
    texts.prepare(folder, tmp_path / 'root')
  with pytest.raises(FileNotFoundError, match=r'no folder .*ptb\.train'):
    texts.prepare(tmp_path / 'nowhere', tmp_path / 'root')
  with pytest.raises(FileNotFoundError, match=r'--manual_dir=FOLDER, one that'):
    data.load('penn_treebank', data_dir=str(tmp_path / 'root'))


def test_a_bad_file_is_named(tmp_path):
  folder = texts.write(tmp_path / 'files')
  (folder / 'ptb.test.txt').write_bytes(b'ok\n\xff\n')
  with pytest.raises(
    ValueError, match=r'files/ptb\.test\.txt is not UTF-8: by'
  ):
    texts.prepare(folder, tmp_path / 'root')
  assert not list(tmp_path.rglob('*.array_record*'))


def test_a_cache_gives_the_same(prepared, own):
  expected = load(prepared).fingerprint()
  assert load(own.parents[1]).fingerprint() == expected
  assert (own / 'kdjax_word.npz').is_file()
  for path in own.glob('*.array_record*'):
    path.unlink()
  assert load(own.parents[1]).fingerprint() == expected


@pytest.mark.parametrize(
  'spoil',
  [
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(path.read_bytes()[:-30]),
    lambda path: np.savez(path, tokens=np.zeros(3)),
    lambda path: respell(path, tokens=lambda x: x + 100),
    lambda path: respell(path, characters=lambda x: x[:-1]),
    lambda path: respell(path, starts=lambda x: x[:-1]),
    lambda path: respell(path, described=lambda x: x[:-1]),
  ],
)
def test_a_spoiled_cache_is_made_again(prepared, own, spoil):
  load(own.parents[1])
  whole = (own / 'kdjax_word.npz').read_bytes()
  spoil(own / 'kdjax_word.npz')
  expected = load(prepared).fingerprint()
  assert load(own.parents[1]).fingerprint() == expected
  assert len((own / 'kdjax_word.npz').read_bytes()) == len(whole)


def respell(path, **changes):
  with np.load(path) as cache:
    arrays = dict(cache)
  for name, change in changes.items():
    arrays[name] = change(arrays[name])
  np.savez(path, **arrays)


@pytest.mark.parametrize('name', ['train', 'validation', 'test'])
def test_damaged_records_are_named(own, name):
  (path,) = own.glob(f'*{name}.array_record*')
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(OSError, match=f'{path.name} is not what was prepared'):
    load(own.parents[1])
  with pytest.raises(OSError, match=f'{path.name} is not what was prepared'):
    data.prepare('penn_treebank', data_dir=str(own.parents[1]))


def test_damage_without_a_list_is_still_told(own):
  found = manifest.read(own)
  (own / manifest.NAME).unlink()
  (path,) = own.glob('*train.array_record*')
  whole = path.read_bytes()
  content = bytearray(whole)
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(OSError, match=rf'record 0 of .*{path.name}.*is damaged'):
    data.prepare('penn_treebank', data_dir=str(own.parents[1]))
  path.write_bytes(whole)
  assert data.prepare('penn_treebank', data_dir=str(own.parents[1]))
  assert manifest.read(own) == found


def test_a_long_text_is_several_records(tmp_path, monkeypatch):
  monkeypatch.setattr('kdjax.data.corpus._BLOCK', 7)
  path, content = tmp_path / 'a.txt', 'naïve words\n' * 300
  found = mine(path, content, tokens='char')
  assert ''.join(whole_of(found)) == content


LINES = ''.join(f'line {i % 7} of\n' for i in range(40))


def whole_of(found):
  """The text of all splits, if rows go on from each other."""
  return [
    word
    for split in ('train', 'dev', 'test')
    for word in (
      texts.spelled(found, getattr(found, split).inputs[0, :1])
      + texts.labels_of(found, split)
    )
  ]


def test_a_text_is_cut_at_lines_and_nothing_is_lost(tmp_path):
  found = mine(tmp_path / 'a.txt', LINES)
  words = [w for line in LINES.splitlines() for w in [*line.split(), '<eos>']]
  assert whole_of(found) == words
  sizes = [1 + len(texts.labels_of(found, x)) for x in ('train', 'dev', 'test')]
  assert sizes == [128, 16, 16]
  for split in ('train', 'dev', 'test'):
    assert texts.labels_of(found, split)[-1] == '<eos>'


@pytest.mark.parametrize('fraction', [0.01, 0.2, 0.3, 0.4])
def test_the_share_of_dev_and_test(tmp_path, fraction):
  found = mine(tmp_path / 'a.txt', LINES, dev_fraction=fraction)
  assert len(whole_of(found)) == 160
  for split in ('dev', 'test'):
    size = 1 + len(texts.labels_of(found, split))
    assert size == max(round(fraction * 40), 1) * 4 or (
      abs(size - fraction * 160) < 4
    )


def test_one_line_longer_than_all_others(tmp_path):
  found = mine(
    tmp_path / 'a.txt', 'b ' * 50 + '\n' + 'b\n' * 3, dev_fraction=0.2
  )
  sizes = [1 + len(texts.labels_of(found, x)) for x in ('train', 'dev', 'test')]
  assert sizes == [51, 2, 4]


def test_nothing_would_be_left(tmp_path):
  with pytest.raises(ValueError, match=r'dev_fraction=0\.5 must be below 1/2'):
    mine(tmp_path / 'a.txt', LINES, dev_fraction=0.5)


def test_a_text_of_one_line_is_cut_between_tokens(tmp_path):
  content = 'ab ' * 30
  found = mine(tmp_path / 'a.txt', content, tokens='char')
  assert ''.join(whole_of(found)) == content
  with pytest.raises(ValueError, match=r"batching='padded' needs sentences"):
    mine(tmp_path / 'a.txt', tokens='char', batching='padded')


def test_a_text_that_is_too_short(tmp_path):
  with pytest.raises(ValueError, match=r'a\.txt: 2 tokens are too few to be'):
    mine(tmp_path / 'a.txt', 'a\n')
  with pytest.raises(ValueError, match=r'train text is too short.* 5 are n'):
    mine(tmp_path / 'a.txt', 'a a a\n', tokens='char')
  with pytest.raises(ValueError, match='dev text is too short: it has 1 tok'):
    mine(tmp_path / 'a.txt', 'a a a a a\n\n\n')


def test_a_word_of_dev_that_train_does_not_have(tmp_path):
  content = LINES + 'new line\n'
  message = r"a\.txt, line 41: 'new', in the test .*vocabulary_size to have one"
  with pytest.raises(ValueError, match=message):
    mine(tmp_path / 'a.txt', content)
  found = mine(tmp_path / 'a.txt', vocabulary_size=50)
  assert texts.labels_of(found, 'test')[-3:] == ['<unk>', 'line', '<eos>']


def test_a_folder_of_parts(tmp_path):
  folder = tmp_path / 'parts'
  folder.mkdir()
  (folder / 'train-b.txt').write_text('c d\na a\n')
  (folder / 'train-a.txt').write_text('a b\n')
  (folder / 'valid.txt').write_text('b a\n')
  (folder / 'test.tokens').write_text('d c\n')
  found = mine(folder)
  assert ' '.join(whole_of(found)) == (
    'a b <eos> c d <eos> a a <eos> b a <eos> d c <eos>'
  )
  (folder / 'valid.txt').unlink()
  again = mine(folder)
  assert ' '.join(whole_of(again)) == (
    'a b <eos> c d <eos> a a <eos> d c <eos>'
  )
  assert texts.labels_of(again, 'dev') == ['a', '<eos>']
  assert texts.labels_of(again, 'test') == ['c', '<eos>']


def test_an_edited_file_is_another(tmp_path):
  path = tmp_path / 'a.txt'
  first = mine(path, LINES)
  edited = mine(path, LINES.replace('line 3', 'line 4', 1))
  assert first.fingerprint() != edited.fingerprint()
  assert mine(path, LINES).fingerprint() == first.fingerprint()
  other = mine(tmp_path / 'b.txt', LINES)
  assert other.fingerprint() == first.fingerprint()
  assert len(list(tmp_path.glob('default/text_file/*'))) == 3


def test_records_go_to_the_default_folder_alone(tmp_path):
  folder = tmp_path / 'mine'
  folder.mkdir()
  mine(folder / 'a.txt', LINES)
  assert [path.name for path in folder.iterdir()] == ['a.txt']
  assert list((tmp_path / 'default/text_file').glob('a_*/1.0.0'))
  mine(folder)
  assert [path.name for path in folder.iterdir()] == ['a.txt']
  assert list((tmp_path / 'default/text_file').glob('mine_*/1.0.0'))


def test_a_model_of_the_library(tmp_path):
  words = [*map(str, range(7)), 'of', 'line', 'unused']
  model = tokenizers.Tokenizer(
    models.WordLevel({word: i for i, word in enumerate(words)}, 'unused')
  )
  model.pre_tokenizer = pre_tokenizers.Whitespace()
  path = tmp_path / 'model.json'
  model.save(str(path))
  found = mine(tmp_path / 'a.txt', LINES, tokens=str(path))
  assert found.class_names == (*words, '<eos>')
  by_word = mine(tmp_path / 'a.txt')
  assert whole_of(found) == whole_of(by_word)
  few = mine(tmp_path / 'a.txt', tokens=str(path), vocabulary_size=4)
  assert set(few.class_names) == {'<eos>', '<unk>', 'of', 'line'}
  packed = mine(tmp_path / 'a.txt', tokens=str(path), batching='packed')
  assert packed.text.boundary == 10
  # The last line is a sentence of four tokens.
  assert packed.text.num_characters['test'] == len('line 0 of\n') * 4


def test_prepare_reports_tokens(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text(LINES + 'new\n')
  done = data.prepare('text_file', manual_dir=str(path))
  assert sum(done.num_examples.values()) == 162
  assert (done.vocabulary_size, done.was_prepared) == (10, False)
  assert data.prepare('text_file', manual_dir=str(path)).was_prepared
  mine(path, vocabulary_size=30)
  assert len(list(tmp_path.glob('default/text_file/*'))) == 1
  with pytest.raises(ValueError, match=r'--manual_dir of kdjax\.prepare'):
    data.prepare('text_file')
