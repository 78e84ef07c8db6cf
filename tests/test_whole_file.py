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
