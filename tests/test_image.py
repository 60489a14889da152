"""Pictures of relevance: sums, levels, colours, layout of grids, and writing files."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from lrpfast.errors import InputError, NonFiniteError, OutputError
from lrpfast.image import COLORMAPS, colorize, grid, heatmap, normalize, overlay, render, save, side_by_side


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def photo_of(width, height, value=128):
    return Image.new("RGB", (width, height), (value, value, value))


@pytest.mark.parametrize(
    ("shape", "axis", "result"),
    [
        ((5, 7), None, (5, 7)),
        ((3, 5, 7), 0, (5, 7)),
        ((5, 7, 3), 2, (5, 7)),
        ((1, 5, 7), 0, (5, 7)),
        ((4, 3, 5, 7), 1, (4, 5, 7)),
        ((4, 5, 7, 3), 3, (4, 5, 7)),
        ((1, 1, 5, 7), 1, (1, 5, 7)),
    ],
)
def test_heatmap_sums_over_the_channels(rng, shape, axis, result):
    relevance = rng.standard_normal(shape).astype(np.float32)
    heat = heatmap(relevance)
    assert heat.shape == result
    assert heat.dtype == np.float64
    expected = relevance.astype(np.float64)
    np.testing.assert_array_equal(heat, expected if axis is None else expected.sum(axis))


def test_channel_axis_can_be_named(rng):
    features = rng.standard_normal((64, 5, 7))
    np.testing.assert_array_equal(heatmap(features, channel_axis=0), features.sum(0))
    np.testing.assert_array_equal(heatmap(features, channel_axis=None), features)


@pytest.mark.parametrize(
    ("relevance", "axis", "error", "words"),
    [
        (np.zeros((64, 5, 7)), "auto", InputError, "cannot tell which axis of relevance of shape (64, 5, 7)"),
        (np.zeros((3, 5, 3)), "auto", InputError, "give channel_axis"),
        (np.zeros(5), "auto", InputError, "cannot tell"),
        (np.zeros((2, 2, 3, 5, 7)), "auto", InputError, "cannot tell"),
        (np.zeros((3, 5, 7)), 3, InputError, "no axis 3"),
        (np.zeros((3, 5, 7)), "first", InputError, "no axis 'first'"),
        (np.zeros((5, 7)), 0, InputError, "not (7,)"),
        (np.zeros((3, 0, 7)), "auto", InputError, "not (0, 7)"),
        (np.array(["a"]), "auto", InputError, "expected real numbers"),
        (np.zeros((3, 5, 7), complex), "auto", InputError, "expected real numbers"),
        ([[1, 2], [3]], "auto", InputError, "is not an array"),
        (np.full((3, 5, 7), np.nan), "auto", NonFiniteError, "105 NaN or infinite"),
        (np.full((3, 5, 7), 1e308), "auto", NonFiniteError, "infinite"),
    ],
)
def test_heatmap_refuses(relevance, axis, error, words):
    with pytest.raises(error) as caught:
        heatmap(relevance, axis)
    assert words in str(caught.value)


def test_normalize_divides_by_the_percentile_and_cuts_off():
    heat = np.arange(-50.0, 51).reshape(1, 101)  # |heat|: 0, 1, 1, 2, 2, ...; its median is 25
    np.testing.assert_allclose(normalize(heat, clip=50), np.clip(heat / 25, -1, 1))
    np.testing.assert_allclose(normalize(heat, clip=100), heat / 50)
    np.testing.assert_allclose(normalize(heat, level=200), heat / 200)


def test_each_sign_has_its_own_level_when_not_symmetric():
    values = normalize([[-1.0, 0, 4, 2]], clip=100, symmetric=False)
    np.testing.assert_array_equal(values, [[-1, 0, 1, 0.5]])


def test_levels_are_per_image_or_shared():
    batch = np.array([[[1.0, -0.5]], [[10, 5]]])
    np.testing.assert_array_equal(normalize(batch, clip=100), [[[1, -0.5]], [[1, 0.5]]])
    np.testing.assert_allclose(normalize(batch, clip=100, level="shared"), [[[0.1, -0.05]], [[1, 0.5]]])


def test_a_single_spark_is_seen_although_its_percentile_is_zero():
    heat = np.zeros((100, 100))
    heat[3, 4] = 1e-9
    assert normalize(heat)[3, 4] == 1
    assert np.count_nonzero(normalize(heat)) == 1


@pytest.mark.parametrize("cmap", COLORMAPS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_zero_is_neutral(cmap, symmetric):
    colors = colorize(np.zeros((2, 3)), cmap, symmetric=symmetric)
    assert colors.shape == (2, 3, 3)
    assert colors.dtype == np.uint8
    # Zero among other numbers has the colour of zero alone.
    np.testing.assert_array_equal(colorize([[0.0, 1, -3]], cmap, symmetric=symmetric)[0, 0], colors[0, 0])


@pytest.mark.parametrize(
    ("cmap", "negative", "zero", "positive"),
    [
        ("seismic", (0, 0, 76), (255, 255, 255), (128, 0, 0)),
        ("bwr", (0, 0, 255), (255, 255, 255), (255, 0, 0)),
        ("coldnhot", (217, 255, 255), (0, 0, 0), (255, 255, 217)),
        ("gray", (0, 0, 0), (128, 128, 128), (255, 255, 255)),
        ("hot", (0, 0, 0), (0, 0, 0), (255, 255, 255)),
        ("viridis", (253, 231, 37), (68, 1, 84), (253, 231, 37)),
    ],
)
def test_colours_at_the_ends_and_in_the_middle(cmap, negative, zero, positive):
    np.testing.assert_array_equal(colorize([[-2.0, 0, 2]], cmap), [[negative, zero, positive]])


def test_signed_maps_are_red_above_zero_and_blue_below():
    for cmap in ("seismic", "bwr", "soft", "coldnhot"):
        (r, _, b), (r2, _, b2) = colorize([[0.3, -0.3]], cmap, level=1.0)[0].astype(int)
        assert r > b, cmap
        assert b2 > r2, cmap


def test_colours_lie_on_straight_lines_between_the_anchors():
    # A quarter of the way from white to red, with "bwr"; halfway from white to full red with "seismic".
    np.testing.assert_array_equal(colorize([[0.25]], "bwr", level=1.0)[0, 0], [255, 191, 191])
    np.testing.assert_array_equal(colorize([[0.25]], "seismic", level=1.0)[0, 0], [255, 128, 128])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cmap": "jet"}, "unknown colour map 'jet'; choose one of seismic, bwr"),
        ({"clip": 0}, "clip is 0"),
        ({"clip": 100.1}, "clip is 100.1"),
        ({"clip": np.nan}, "clip is nan"),
        ({"level": "batch"}, "level is 'batch'"),
        ({"level": 0.0}, "level is 0.0"),
        ({"level": np.inf}, "level is inf"),
    ],
)
def test_colorize_refuses(options, words):
    with pytest.raises(InputError) as caught:
        colorize(np.ones((2, 2)), **options)
    assert words in str(caught.value)
    with pytest.raises(InputError):
        render(np.ones((2, 2)), **options)


def test_overlay_shows_the_grey_photo_where_nothing_is_relevant_and_colour_where_it_is():
    photo = Image.new("RGB", (3, 2), (200, 50, 10))
    grey = round(0.299 * 200 + 0.587 * 50 + 0.114 * 10)
    heat = np.array([[0.0, 1, -1], [0, 0.25, 0]])
    picture = np.asarray(overlay(heat, photo, alpha=1, cmap="bwr", clip=100)).astype(int)
    np.testing.assert_array_equal(picture[0], [[grey] * 3, [255, 0, 0], [0, 0, 255]])
    # A quarter of full relevance: opacity 1/2, colour (255, 191, 191).
    np.testing.assert_allclose(picture[1, 1], [(grey + c) / 2 for c in (255, 191, 191)], atol=1)
    np.testing.assert_array_equal(np.asarray(overlay(heat, photo, alpha=0)), np.full((2, 3, 3), grey))


def test_overlay_brings_the_heatmap_to_the_size_of_the_photo():
    heat = np.zeros((2, 4))
    heat[:, :2], heat[:, 2:] = 1, -1
    picture = np.asarray(overlay(heat, photo_of(40, 20), alpha=1, cmap="bwr"))
    assert picture.shape == (20, 40, 3)
    np.testing.assert_array_equal(picture[10, 0], [255, 0, 0])
    np.testing.assert_array_equal(picture[10, 39], [0, 0, 255])


def test_maps_of_positive_relevance_leave_the_photo_alone_where_it_is_negative():
    picture = np.asarray(overlay([[-1.0, 1]], photo_of(2, 1), cmap="hot", alpha=1))
    np.testing.assert_array_equal(picture, [[[128] * 3, [255] * 3]])


def test_overlay_refuses():
    for alpha in (-0.1, 1.1, np.nan):
        with pytest.raises(InputError, match="expected an opacity"):
            overlay(np.ones((2, 2)), photo_of(2, 2), alpha=alpha)
    for photo in (np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8), "photo.jpg"):
        with pytest.raises(InputError, match="a picture is a PIL image or an array of uint8"):
            overlay(np.ones((2, 2)), photo)
    with pytest.raises(InputError, match="not a batch"):
        overlay(np.ones((2, 2, 2)), photo_of(2, 2))


def test_grid_places_every_picture_in_its_cell():
    pictures = [np.full((4, 6, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = np.asarray(grid(pictures, columns=3, pad=2))
    assert sheet.shape == (2 * (4 + 2) + 2, 3 * (6 + 2) + 2, 3)
    for i in range(5):
        top, left = 2 + i // 3 * 6, 2 + i % 3 * 8
        assert np.all(sheet[top : top + 4, left : left + 6] == 10 * i)
    assert np.all(sheet[8:12, 18:24] == 255)  # the sixth cell stays empty
    assert np.asarray(grid(pictures[:4], pad=0)).shape == (8, 12, 3)  # 2 x 2 by default


def test_labels_stand_below_their_pictures_and_within_their_cells():
    black = np.zeros((30, 60), np.uint8)
    plain = np.asarray(grid([black, black], columns=2))
    labelled = np.asarray(grid([black, black], columns=2, labels=["cat", ""]))
    below = labelled[plain.shape[0] - 7 :]
    middle = labelled.shape[1] // 2
    assert below[:, :middle].min() < 100  # text
    assert below[:, middle:].min() == 255  # none
    long = np.asarray(grid([np.zeros((30, 200), np.uint8)], labels=["a very long label " * 9]))
    assert long.shape[1] == 216
    assert long[40:, :8].min() == 255
    assert long[40:, -8:].min() == 255
    two_lines = np.asarray(grid([black, black], columns=2, labels=["cat\n0.9", "dog"]))
    assert two_lines.shape[0] > labelled.shape[0]


def test_small_pictures_get_cells_in_which_a_label_can_be_read():
    tiny = np.zeros((8, 8), np.uint8)
    assert grid([tiny]).size == (24, 24)
    assert 60 < grid([tiny], labels=["sandal 0.98"]).width < 160


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": []}, "at least one picture"),
        ({"labels": ["one", "two"]}, "2 labels for 1 pictures"),
        ({"columns": 0}, "columns is 0"),
        ({"pad": -1}, "pad is -1"),
        ({"font_size": 0}, "font_size is 0"),
    ],
)
def test_grid_refuses(arguments, words):
    with pytest.raises(InputError, match=words):
        grid(**{"images": [photo_of(2, 2)], **arguments})


def test_side_by_side_has_the_photo_left_and_each_heatmap_in_its_size():
    photo = photo_of(20, 10)
    row = np.asarray(side_by_side(photo, [[1.0, -1]], [[0.0, 0]], cmap="bwr"))
    assert row.shape == (26, 3 * 28 + 8, 3)
    np.testing.assert_array_equal(row[12, 12], [128, 128, 128])
    np.testing.assert_array_equal(row[12, [37, 54]], [[255, 0, 0], [0, 0, 255]])
    np.testing.assert_array_equal(row[12, 70], [255, 255, 255])


def test_side_by_side_averages_a_heatmap_larger_than_the_photo():
    row = np.asarray(side_by_side(photo_of(1, 1), [[1.0, 0], [0, 0]], cmap="bwr"))
    np.testing.assert_allclose(row[8, 17], [255, 191, 191], atol=1)


def test_render_makes_small_pictures_large_without_blurring():
    picture = render([[1.0, -1], [0, 1]], cmap="bwr")
    assert picture.size == (224, 224)
    red, blue, white = [255, 0, 0], [0, 0, 255], [255, 255, 255]
    pixels = np.asarray(picture)
    for rows, columns, color in (
        (slice(112), slice(112), red),
        (slice(112), slice(112, 224), blue),
        (slice(112, 224), slice(112), white),
    ):
        assert np.all(pixels[rows, columns] == color)
    assert render(np.ones((3, 100, 150))).size == (150, 100)
    assert render(np.ones((8, 8)), enlarge=3).size == (24, 24)


def test_render_modes_agree_with_the_functions(rng):
    relevance = rng.standard_normal((3, 30, 40))
    heat, photo = relevance.sum(0), photo_of(40, 30, 90)
    np.testing.assert_array_equal(render(relevance, enlarge=1), colorize(heat))
    np.testing.assert_array_equal(render(relevance, photo, "overlay", enlarge=1), overlay(heat, photo))
    np.testing.assert_array_equal(
        render(relevance, photo, "side_by_side", enlarge=1), side_by_side(photo, heat)
    )


def test_render_lays_a_batch_out_as_a_grid_with_levels_as_asked(rng):
    relevance = rng.standard_normal((3, 1, 30, 40)) * np.array([1, 5, 25]).reshape(3, 1, 1, 1)
    heats, photos = relevance[:, 0], rng.integers(0, 256, (3, 30, 40, 3)).astype(np.uint8)
    level = np.percentile(np.abs(heats), 99.5)
    np.testing.assert_array_equal(
        render(relevance, photos, "overlay", enlarge=1, level="shared"),
        grid([overlay(heat, photo, level=level) for heat, photo in zip(heats, photos, strict=True)]),
    )
    np.testing.assert_array_equal(render(relevance, enlarge=1), grid(list(colorize(heats))))
    np.testing.assert_array_equal(
        render(relevance[:1], photos[0], "side_by_side", enlarge=1), side_by_side(photos[0], heats[0])
    )


def test_render_refuses(rng):
    relevance = rng.standard_normal((2, 3, 8, 8))
    with pytest.raises(InputError, match="mode is 'photo'"):
        render(relevance, mode="photo")
    with pytest.raises(InputError, match="0 photos and 2 samples"):
        render(relevance, mode="overlay")
    with pytest.raises(InputError, match="1 photos and 2 samples"):
        render(relevance, photo_of(8, 8), "side_by_side")
    with pytest.raises(InputError, match="enlarge is 0"):
        render(relevance, enlarge=0)
    relevance[1, 2, 3, 4] = np.nan
    with pytest.raises(NonFiniteError):
        render(relevance)


def test_render_is_deterministic_and_leaves_its_input_alone(rng):
    relevance = rng.standard_normal((3, 30, 40))
    before = relevance.copy()
    assert render(relevance).tobytes() == render(relevance).tobytes()
    np.testing.assert_array_equal(relevance, before)


@pytest.mark.parametrize("name", ["map.png", "map.PNG", "map.jpg", "map.webp", "map.bmp", "ä map.tiff"])
def test_save_writes_the_picture_and_nothing_else(tmp_path, name):
    picture = render(np.eye(8))
    (tmp_path / name).write_text("an older file")
    save(picture, tmp_path / name)
    with Image.open(tmp_path / name) as read:
        assert read.size == picture.size
        error = np.abs(np.asarray(read.convert("RGB")).astype(int) - np.asarray(picture))
    assert error.mean() < 1
    assert os.listdir(tmp_path) == [name]


def test_save_refuses_and_leaves_nothing_behind(tmp_path):
    picture = render(np.eye(8))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("x")
    for path, words in (
        (tmp_path / "map.xyz", "'.xyz' is no format"),
        (tmp_path / "map", "'' is no format"),
        (tmp_path / "missing" / "map.png", "No such file or directory"),
        (tmp_path / "file" / "map.png", "Not a directory"),
        (tmp_path / "folder.png", "choose a place that can be written to"),
    ):
        with pytest.raises(OutputError) as caught:
            save(picture, path)
        assert words in str(caught.value)
        assert str(path) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_a_failing_write_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "map.png"
    path.write_text("precious")

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        save(render(np.eye(8)), path)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["map.png"]
