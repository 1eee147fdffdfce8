"""Words, characters, and the tokens of a model."""

import json
import sys

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from kdjax.data import tokens
from kdjax.data.corpus import Document

TEXT = 'to be or  not\n\n to be: naïve 🙂\n'


def read(text, how='word'):
  return tokens.tokenise([Document('a.txt', 'train', text)], how)


def spelled(corpus):
  return [corpus.types[i] for i in corpus.tokens]


def test_words_are_what_blanks_separate():
  corpus = read(TEXT)
  assert ' '.join(spelled(corpus)) == (
    'to be or not <eos> <eos> to be: naïve 🙂 <eos>'
  )
  assert corpus.types[corpus.end] == '<eos>'
  assert corpus.tokens.dtype == np.int32


def test_words_stand_for_their_characters_and_a_blank():
  corpus = read(TEXT)
  assert corpus.characters.tolist() == [3, 3, 3, 4, 0, 1, 3, 4, 6, 2, 0]
  assert corpus.characters.sum() == len('to be or not\n\nto be: naïve 🙂\n')


@pytest.mark.parametrize('how', ['word', 'char'])
def test_a_last_line_without_its_newline(how):
  corpus = read('a b\nc', how)
  assert spelled(corpus)[-1] == ('<eos>' if how == 'word' else 'c')
  assert spelled(corpus)[: len(spelled(read('a b\n', how)))] == (
    spelled(read('a b\n', how))
  )


def test_characters_are_all_there():
  corpus = read(TEXT, 'char')
  assert ''.join(spelled(corpus)) == TEXT
  assert corpus.types == tuple(sorted(set(TEXT)))
  assert corpus.types[corpus.end] == '\n'
  assert corpus.characters.tolist() == [1] * len(TEXT)
  assert read('no line', 'char').end == -1


def test_documents_have_places():
  documents = [
    Document('a.txt', 'train', 'one two\nthree\n'),
    Document('b.txt', 'test', '\nfour five'),
  ]
  for how in ('word', 'char'):
    corpus = tokens.tokenise(documents, how)
    words = spelled(corpus)
    last = len(words) - 1
    assert corpus.place(0) == 'a.txt, line 1'
    assert corpus.place(last) == 'b.txt, line 2'
    assert corpus.place(int(corpus.starts[1])) == 'b.txt, line 1'
    assert corpus.place(int(corpus.starts[1]) - 1) == 'a.txt, line 2'
    found = np.concatenate([corpus.positions(x) for x in ('train', 'test')])
    assert found.tolist() == list(range(len(words)))
    assert corpus.positions('dev').size == 0


def test_a_word_that_is_the_end_of_a_line():
  with pytest.raises(ValueError, match=r"a\.txt, line 2: the word '<eos>'"):
    read('one\ntwo <eos>\n')
  assert read('one\ntwo <eos>\n', 'char').types


@pytest.fixture
def model(tmp_path):
  """The file of a model: words and bytes, of which no number is 3."""
  vocabulary = {'a': 0, 'b': 1, 'ab': 2, 'Ġ': 4, 'Ġa': 5}
  found = tokenizers.Tokenizer(models.BPE(vocabulary, [('a', 'b'), ('Ġ', 'a')]))
  found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  found.decoder = decoders.ByteLevel()
  path = tmp_path / 'model.json'
  found.save(str(path))
  return path


def test_a_model_of_the_library(model):
  corpus = read('ab a\n\nb ab', str(model))
  assert corpus.types == ('a', 'b', 'ab', '<3>', 'Ġ', 'Ġa', '<eos>')
  assert spelled(corpus) == (
    ['ab', 'Ġa', '<eos>', '<eos>', 'b', 'Ġ', 'ab', '<eos>']
  )
  assert corpus.characters.tolist() == [0, 0, 5, 1, 0, 0, 0, 5]
  assert corpus.types[corpus.end] == '<eos>'
  assert corpus.is_fixed


def test_documents_of_a_model_begin_where_they_should(model):
  documents = [Document('a', 'train', 'a\nb\n'), Document('b', 'test', 'ab')]
  corpus = tokens.tokenise(documents, str(model))
  assert corpus.starts.tolist() == [0, 4, 6]
  assert corpus.place(2) == 'a, line 2'
  assert corpus.place(4) == 'b, line 1'


def test_an_end_that_a_model_has(model):
  content = json.loads(model.read_text())
  content['model']['vocab']['<eos>'] = 3
  model.write_text(json.dumps(content))
  corpus = read('a\n', str(model))
  assert corpus.types == ('a', 'b', 'ab', '<eos>', 'Ġ', 'Ġa')
  assert corpus.tokens.tolist() == [0, 3]


def test_a_model_neither_cuts_nor_pads(model):
  found = tokenizers.Tokenizer.from_file(str(model))
  found.enable_truncation(1)
  found.enable_padding(length=8)
  found.save(str(model))
  assert spelled(read('ab a\n', str(model))) == ['ab', 'Ġa', '<eos>']


@pytest.mark.parametrize('content', ['', '{}', 'text', '{"model": 1}'])
def test_a_file_that_is_no_model(tmp_path, content):
  path = tmp_path / 'model.json'
  path.write_text(content)
  with pytest.raises(ValueError, match=r'model\.json is no JSON file of the'):
    read('a\n', str(path))


def test_without_the_library(model, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tokenizers', None)
  with pytest.raises(ValueError, match=r"pip install 'kdjax\[text\]'"):
    read('a\n', str(model))


def test_keys_differ_by_content(model):
  first = tokens.key(str(model))
  model.write_text(model.read_text() + ' ')
  assert tokens.key(str(model)) != first
  assert (tokens.key('word'), tokens.key('char')) == ('word', 'char')


def test_what_is_no_way_to_cut_a_text(tmp_path):
  for wrong in ('words', str(tmp_path), str(tmp_path / 'none.json')):
    with pytest.raises(ValueError, match=r'config\.dataset\.text\.tokens='):
      tokens.check(wrong)
