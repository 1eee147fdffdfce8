"""The text that every Python brings along."""

import sys
from pydoc_data import topics

import numpy as np
import pytest

from kdjax import data
from kdjax.data import language, python_docs, store


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('docs')
  data.load('python_docs', data_dir=str(folder))
  return folder


def load(root, **text):
  return data.load('python_docs', data_dir=str(root), text=text)


def test_it_prepares_itself_and_is_the_same_twice(root, tmp_path):
  first, second = load(root), load(tmp_path)
  assert first.fingerprint() == second.fingerprint() == load(root).fingerprint()
  (folder,) = (root / 'python_docs').iterdir()
  version = '.'.join(map(str, sys.version_info[:2]))
  assert folder.name.startswith(f'python{version}_')


def test_there_is_enough_to_learn_from(root):
  found = load(root)
  num_tokens = int((found.train.labels != data.PADDING).sum())
  assert num_tokens > 40_000
  assert 1000 < found.num_classes < 3000
  assert {'<unk>', '<eos>', 'class', 'the', '.'} <= set(found.class_names)
  known = [i for i, x in enumerate(found.class_names) if x != '<unk>']
  # The first token of all is only read.
  assert (found.text.token_counts[known] >= 2).all()
  unknown = found.class_names.index('<unk>')
  for split in (found.train, found.dev, found.test):
    assert (split.labels == unknown).mean() < 0.15


def test_a_smaller_vocabulary(root):
  found = load(root, vocabulary_size=200)
  assert found.num_classes == 200
  assert found.class_names[0] in ('<unk>', '"', 'the')


def test_splits_are_topics_and_share_no_paragraph(root):
  where = store.place('python_docs', data_dir=str(root))
  corpus = store.read_corpus(where, tokens='word')
  positions = language.split(corpus, 'python_docs', dev_fraction=0.1)
  of_topic = np.repeat(np.arange(len(corpus.names)), np.diff(corpus.starts))
  drawn = {name: set(of_topic[found]) for name, found in positions.items()}
  everything = sorted(np.concatenate(list(positions.values())))
  assert everything == list(range(len(corpus.tokens)))
  assert sum(map(len, drawn.values())) == len(corpus.names)
  assert len(set.union(*drawn.values())) == len(corpus.names)
  tenth = round(0.1 * len(corpus.names))
  assert len(drawn['dev']) == len(drawn['test']) == tenth
  lines = [
    line
    for document in python_docs.Edition().documents()
    for line in document.text.splitlines()
  ]
  assert len(set(lines)) == len(lines)


def test_every_paragraph_of_every_topic_is_there():
  lines = {
    line
    for document in python_docs.Edition().documents()
    for line in document.text.splitlines()
  }
  for text in topics.topics.values():
    assert set(python_docs.sentences(text)) <= lines


def test_another_text_has_another_folder(monkeypatch):
  first = python_docs.Edition().folder()
  assert python_docs.Edition().folder() == first
  monkeypatch.setattr(topics, 'topics', {'a': 'A text.', 'b': 'A text.\n\nB'})
  edition = python_docs.Edition()
  assert edition.folder() != first
  assert [document.text for document in edition.documents()] == [
    'a text .\n',
    'b\n',
  ]


def test_words_and_punctuation():
  text = (
    'Sequence Types --- "str"\n***\n\nNew in 3.11: x_1 == y\'s\n\n\n  a ...'
  )
  assert python_docs.sentences(text) == [
    'sequence types --- " str "',
    "new in 3 . 11 : x_1 == y ' s",
    'a ...',
  ]


def test_the_split_moves_with_its_share(root):
  few = load(root)
  many = data.load('python_docs', data_dir=str(root), dev_fraction=0.3)
  assert len(many.train.labels) < len(few.train.labels)
  with pytest.raises(ValueError, match=r'dev_fraction=0\.6 must be below 1/2'):
    data.load('python_docs', data_dir=str(root), dev_fraction=0.6)


def test_it_takes_no_files(tmp_path):
  with pytest.raises(ValueError, match="'python_docs' needs no files"):
    data.prepare(
      'python_docs', data_dir=str(tmp_path), manual_dir=str(tmp_path)
    )
