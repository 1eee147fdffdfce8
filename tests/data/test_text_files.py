"""Which files are found, and what is said of the wrong ones."""

import pytest

from kdjax.data import text_files
from kdjax.data.text_files import TextFiles


def write(folder, *names, content='a\n'):
  folder.mkdir(exist_ok=True)
  for name in names:
    (folder / name).write_text(content)
  return folder


def found(path):
  return [(part, file.name) for part, file in TextFiles(str(path)).files]


def test_a_file_is_all_there_is(tmp_path):
  path = tmp_path / 'test.md'
  path.write_text('a\n')
  assert found(path) == [('train', 'test.md')]


def test_parts_by_their_names(tmp_path):
  write(
    tmp_path,
    *('train-1.txt', 'train-0.txt', 'valid.tokens', 'test.txt'),
    *('README.txt', '.train.txt', 'train.bin', 'contest.txt'),
  )
  (tmp_path / 'train-2.txt').mkdir()
  assert found(tmp_path) == [
    ('train', 'train-0.txt'),
    ('train', 'train-1.txt'),
    ('dev', 'valid.tokens'),
    ('test', 'test.txt'),
  ]


@pytest.mark.parametrize(
  ('name', 'part'),
  [
    ('training.txt', 'train'),
    ('train1.txt', 'train'),
    ('Train_a.txt', 'train'),
    ('ptb.train.txt', 'train'),
    ('dev.txt', 'dev'),
    ('validation-0.txt', 'dev'),
    ('val.txt', 'dev'),
    ('wiki.valid.tokens', 'dev'),
    ('ptb.test.txt', 'test'),
  ],
)
def test_names_of_parts(tmp_path, name, part):
  write(tmp_path, 'train.txt', name)
  assert (part, name) in found(tmp_path)


def test_without_parts_all_are_one_text(tmp_path):
  write(tmp_path, 'b.txt', 'a.tokens', 'trains.txt', 'note.md')
  assert found(tmp_path) == [
    ('train', 'a.tokens'),
    ('train', 'b.txt'),
    ('train', 'trains.txt'),
  ]


def test_parts_without_train(tmp_path):
  write(tmp_path, 'valid.txt', 'test.txt')
  with pytest.raises(FileNotFoundError, match=r'holds test\.txt, valid\.txt: '):
    found(tmp_path)


def test_no_text(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'holds nothing: .*\.tokens'):
    found(tmp_path)
  write(tmp_path, *(f'{i:02}.md' for i in range(13)))
  with pytest.raises(FileNotFoundError, match=r'00\.md.*09\.md and 3 more: '):
    found(tmp_path)
  with pytest.raises(FileNotFoundError, match=r'there is no .*nowhere'):
    found(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='name it by config'):
    found('')


def test_a_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  write(tmp_path, 'mine.txt')
  assert found('~/mine.txt') == [('train', 'mine.txt')]
  assert TextFiles('~/mine.txt').folder().startswith('mine_')


def test_the_folder_differs_with_content_part_and_order(tmp_path):
  path = tmp_path / 'a text.txt'
  path.write_text('one\n')
  first = TextFiles(str(path)).folder()
  assert first.startswith('a-text_')
  assert TextFiles(str(path)).folder() == first
  path.write_text('two\n')
  assert TextFiles(str(path)).folder() != first
  names = set()
  for number, files in enumerate(
    (('train.txt', 'test.txt'), ('train.txt', 'dev.txt'), ('train.txt',))
  ):
    folder = tmp_path / str(number) / 'same'
    folder.parent.mkdir()
    names.add(TextFiles(str(write(folder, *files))).folder())
  assert len(names) == 3


def test_a_file_that_changes_while_it_is_read(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('one\n')
  given = TextFiles(str(path))
  given.folder()
  path.write_text('two\n')
  with pytest.raises(ValueError, match=r'a\.txt changed while it was read'):
    given.documents()


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'is empty'),
    (b' \n\n', 'is empty'),
    (b'\xef\xbb\xbf', 'is empty'),
    (b'abc\xff\n', r'is not UTF-8: byte 3 is 0xff \(invalid start byte\)'),
    (b'\xef\xbb\xbfab\xe9\n', 'is not UTF-8: byte 5 is 0xe9'),
    (b'ab\xc3', r'is not UTF-8: byte 2 is 0xc3 \(unexpected end of data\)'),
    (b'PK\x03\x00\x00', 'is no text in UTF-8: its byte 3 is 0'),
    ('text\n'.encode('utf-16-le'), 'is no text in UTF-8: its byte 1 is 0'),
  ],
)
def test_what_is_no_text(tmp_path, content, message):
  path = tmp_path / 'bad.txt'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    text_files.read(path)
  assert str(path) in str(error.value)
  assert '\n' not in str(error.value)


def test_text_is_read_as_it_is(tmp_path):
  path = tmp_path / 'good.txt'
  path.write_bytes(b'\xef\xbb\xbfna\xc3\xafve\r\n\tb')
  assert text_files.read(path) == 'naïve\r\n\tb'
