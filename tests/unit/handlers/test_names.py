"""The files that images get by their names."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixaris_sync.handlers.record import FILE_NAME_BYTES_MAX, cloud_names, local_names
from pixaris_sync.rules.contract import IMAGE_SUFFIXES
from pixaris_sync.rules.names import component_fault, object_name_fault

characters = st.sampled_from("ab._2 /\\\0\n\rä🙂\ud800") | st.characters()
names = st.lists(
    st.builds(
        lambda stem, times, suffix: stem * times + suffix,
        st.text(characters, max_size=6),
        st.sampled_from([1, 1, 1, 90]),
        st.sampled_from(["", ".png", ".PNG", ".jpg", ".b.png", ".webp", "_2.png"]),
    ),
    max_size=6,
)


@given(names)
@example(["a", "a", "a_2", "a_2"])
@example(["a.b.PNG", "a.c.png"])
@example(["", ".", ".."])
def test_every_image_has_a_file_of_its_own(given_names: list[str]) -> None:
    """Goal: no image overwrites another, none is hidden or refused. Method: any names, both handlers."""
    for rule in (local_names, cloud_names):
        files = rule(given_names)
        assert len(set(files)) == len(files) == len(given_names)
        for file in files:
            assert component_fault(file) is None
            assert not file.startswith(".")
            assert object_name_fault(file) is None
            assert len(file.encode()) <= FILE_NAME_BYTES_MAX
            # LocalExperimentHandler lists small letters alone; in the cloud everything is listed.
            assert (file if rule is local_names else file.lower()).endswith(IMAGE_SUFFIXES)


@given(names)
def test_names_are_those_of_pixaris_where_it_loses_nothing(given_names: list[str]) -> None:
    """Goal: the same files as Pixaris makes. Method: its rules, for names that it can store apart."""
    theirs = [f"{name.split('.')[0]}.png" for name in given_names]
    count = Counter(theirs)
    for file, mine in zip(theirs, local_names(given_names), strict=True):
        is_sound = not file.startswith(".") and not component_fault(file) and not object_name_fault(file)
        if max(count.values()) == 1 and is_sound and len(file.encode()) <= FILE_NAME_BYTES_MAX:
            assert mine == file
    usable = [
        name
        for name in dict.fromkeys(given_names)
        if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        if not component_fault(name)
        and not object_name_fault(name)
        and len(name.encode()) <= FILE_NAME_BYTES_MAX
    ]
    assert cloud_names(usable) == usable


@pytest.mark.parametrize(
    ("images", "local", "cloud"),
    [
        (["a.png"], ["a.png"], ["a.png"]),
        (["a.b.png", "a.c.png"], ["a.b.png", "a.c.png"], ["a.b.png", "a.c.png"]),
        (["a.b.png", "a.c.jpg"], ["a.b.png", "a.c.jpg.png"], ["a.b.png", "a.c.jpg"]),
        (["a.b.PNG", "a"], ["a.b.PNG.png", "a.png"], ["a.b.PNG", "a.png"]),
        (["a", "a", "a_2"], ["a.png", "a_2.png", "a_2_2.png"], ["a.png", "a_2.png", "a_2_2.png"]),
        (["x/y.png"], ["x_y.png"], ["x_y.png"]),
        ([".x.png", ""], ["_.x.png", "_.png"], ["_.x.png", "_.png"]),
        (["ä" * 200], ["ä" * 125 + ".png"], ["ä" * 125 + ".png"]),
    ],
)
def test_names_by_example(images: list[str], local: list[str], cloud: list[str]) -> None:
    """Goal: a reader sees what names become. Method: the cases of the documentation."""
    assert local_names(images) == local
    assert cloud_names(images) == cloud
