import os

import pytest

from pyro_vbd.whole_file import whole_file


def test_a_whole_file_takes_the_place(tmp_path):
    path = tmp_path / "new" / "file"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"good")
    assert path.read_bytes() == b"good"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_half_written_one_does_not(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"good")

    def write():
        with whole_file(path) as temporary:
            temporary.write_bytes(b"ba")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


class Killed(BaseException):
    pass


def write(path, content):
    with whole_file(path, path.with_name("previous")) as temporary:
        temporary.write_bytes(content)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def no_links(*_, **__):
    raise OSError("this file system has none")


@pytest.mark.parametrize("with_links", [True, False])
def test_the_file_that_was_there_gets_another_name(tmp_path, monkeypatch, with_links):
    if not with_links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "file"
    for content in (b"first", b"second", b"third"):
        write(path, content)
    assert contents(tmp_path) == {"file": b"third", "previous": b"second"}


@pytest.mark.parametrize("with_links", [True, False])
@pytest.mark.parametrize("moment", range(3))
def test_at_every_moment_there_is_a_whole_file(tmp_path, monkeypatch, moment, with_links):
    """Killed before a change of a name, or between two."""
    path, moments = tmp_path / "file", iter(range(3))
    write(path, b"first")

    def or_killed(function):
        def step(*arguments, **settings):
            if next(moments) == moment:
                raise Killed
            return function(*arguments, **settings)

        return step

    with monkeypatch.context() as during:
        during.setattr(os, "link", or_killed(os.link if with_links else no_links))
        during.setattr(os, "replace", or_killed(os.replace))
        with pytest.raises(Killed):
            write(path, b"second")
    assert path.read_bytes() == b"first"
    if not with_links:
        monkeypatch.setattr(os, "link", no_links)
    for content in (b"third", b"fourth"):
        write(path, content)
        assert path.read_bytes() == content
    assert contents(tmp_path) == {"file": b"fourth", "previous": b"third"}
