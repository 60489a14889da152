"""Reading photographs and arrays, and turning them into what networks take."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lrpfast.errors import InputError
from lrpfast.preprocess import PREPROCESSINGS, Preprocessing, bounds, prepare, read_arrays, read_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def gradient(width, height):
    """A picture whose red grows to the right and whose green grows downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


def random_picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))


class TestReadImage:
    def test_gives_the_pixels_as_rgb(self, tmp_path):
        pixels = np.array([[RED, GREEN, BLUE]], np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        picture = read_image(tmp_path / "a.png")
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(picture, pixels)

    def test_turns_the_picture_upright(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # Orientation: the camera was turned, rotate by 90 degrees clockwise to show
        Image.fromarray(np.array([[RED, GREEN]], np.uint8)).save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[RED], [GREEN]])

    @pytest.mark.parametrize("name", ["a.png", "palette.gif", "grey.png"])
    def test_lays_transparency_over_white(self, tmp_path, name):
        picture = Image.fromarray(np.array([[(9, 9, 9, 255), (9, 9, 9, 0)]], np.uint8))
        (picture.convert("LA") if name == "grey.png" else picture).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name), [[(9, 9, 9), (255, 255, 255)]])

    def test_half_transparent_black_over_white_is_grey(self, tmp_path):
        Image.fromarray(np.array([[(0, 0, 0, 128)]], np.uint8)).save(tmp_path / "a.png")
        np.testing.assert_allclose(read_image(tmp_path / "a.png"), [[(127, 127, 127)]], atol=1)

    def test_scales_16_bits_instead_of_cutting_them_off(self, tmp_path):
        Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[(0,) * 3, (128,) * 3, (255,) * 3]])

    def test_reads_cmyk(self, tmp_path):
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
        np.testing.assert_allclose(np.asarray(read_image(tmp_path / "a.jpg"))[4, 4], RED, atol=3)

    def test_refuses_what_it_cannot_read(self, tmp_path):
        gradient(64, 64).save(tmp_path / "whole.jpg")
        (tmp_path / "truncated.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:500])
        gradient(64, 64).save(tmp_path / "whole.png")
        data = bytearray((tmp_path / "whole.png").read_bytes())
        data[60] ^= 255
        (tmp_path / "damaged.png").write_bytes(data)
        (tmp_path / "text.png").write_text("no picture")
        (tmp_path / "empty.png").write_bytes(b"")
        Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tiff")
        Image.fromarray(np.ones((2, 2), np.int32)).save(tmp_path / "int.tiff")
        for name, words in (
            ("missing.png", "No such file or directory"),
            ("", "Is a directory"),
            ("truncated.jpg", "truncated"),
            ("damaged.png", ""),
            ("text.png", "cannot identify"),
            ("empty.png", "cannot identify"),
            ("float.tiff", "32-bit numbers"),
            ("int.tiff", "32-bit numbers"),
        ):
            with pytest.raises(InputError) as caught:
                read_image(tmp_path / name)
            assert f"cannot read the image {str(tmp_path / name)!r}: " in str(caught.value)
            assert words in str(caught.value)

    def test_refuses_more_pixels_than_the_limit(self, tmp_path):
        gradient(20, 10).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png", max_pixels=200).size == (20, 10)
        with pytest.raises(
            InputError, match=r"20 x 10 pixels: 200, more than the limit of 199; .*pixels=200"
        ):
            read_image(tmp_path / "a.png", max_pixels=199)


class TestPrepare:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("raw", [51, 102, 204]),
            ("tf", [-0.6, -0.2, 0.6]),
            ("efficientnet-lite", [-76 / 128, -25 / 128, 77 / 128]),
            ("imagenet", [(0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.8 - 0.406) / 0.225]),
        ],
    )
    def test_presets_on_one_colour(self, name, expected):
        picture = Image.new("RGB", (30, 20), (51, 102, 204))
        array, seen = prepare(picture, (3, 4, 5), PREPROCESSINGS[name])
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert seen.size == (5, 4)
        np.testing.assert_allclose(
            array, np.broadcast_to(np.reshape(expected, (3, 1, 1)), (3, 4, 5)), rtol=1e-6
        )

    def test_layouts_and_channel_orders_hold_the_same_numbers(self):
        picture = random_picture(9, 7)
        plain = Preprocessing(resize="stretch", mean=(1, 2, 3), std=(4, 5, 6))
        array, seen = prepare(picture, (3, 7, 9), plain)
        np.testing.assert_array_equal(seen, picture)
        pixels = np.asarray(picture, np.float64)
        np.testing.assert_allclose(array, ((pixels - [1, 2, 3]) / [4, 5, 6]).transpose(2, 0, 1), rtol=1e-6)
        np.testing.assert_array_equal(prepare(picture, (7, 9, 3), plain)[0], array.transpose(1, 2, 0))
        bgr = Preprocessing(resize="stretch", channels="BGR", mean=(3, 2, 1), std=(6, 5, 4))
        np.testing.assert_array_equal(prepare(picture, (3, 7, 9), bgr)[0], array[::-1])

    def test_one_channel_is_grey(self):
        picture = Image.new("RGB", (4, 4), (200, 50, 10))
        grey = round(0.299 * 200 + 0.587 * 50 + 0.114 * 10)
        for shape in ((1, 4, 4), (4, 4, 1)):
            array, seen = prepare(picture, shape, PREPROCESSINGS["raw"])
            assert array.shape == shape
            assert seen.mode == "L"
            np.testing.assert_array_equal(array, grey)
        array, seen = prepare(picture, (3, 4, 4), Preprocessing(grayscale=True))
        np.testing.assert_array_equal(array, np.full((3, 4, 4), grey))

    def test_crop_takes_the_centre_at_the_ratio(self):
        # 32 x 16 for a network of 14 x 14: the shorter side becomes 14 / .875 = 16, so nothing is resized.
        picture = random_picture(32, 16)
        _, seen = prepare(picture, (3, 14, 14), Preprocessing(crop_ratio=0.875))
        np.testing.assert_array_equal(seen, picture.crop((9, 1, 23, 15)))
        # The same for a network that is not square, and a picture that is too tall for it.
        picture = random_picture(20, 50)
        _, seen = prepare(picture, (3, 8, 10), Preprocessing(crop_ratio=0.5))
        np.testing.assert_array_equal(seen, picture.crop((5, 21, 15, 29)))
        # And one that is tall, for a network that is taller still.
        picture = random_picture(16, 20)
        _, seen = prepare(picture, (3, 10, 4), Preprocessing(crop_ratio=0.5))
        np.testing.assert_array_equal(seen, picture.crop((6, 5, 10, 15)))

    def test_crop_resizes_by_the_shorter_side(self):
        # torchvision's Resize(256) makes 385 x 256 of 452 x 300 (rounding down), CenterCrop(224) takes
        # 80 ... 304 and 16 ... 240 (80.5 rounded to even).
        picture = random_picture(452, 300)
        _, seen = prepare(picture, (3, 224, 224), PREPROCESSINGS["imagenet"])
        whole = picture.resize((385, 256), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(seen, whole.crop((80, 16, 304, 240)))

    def test_stretch_takes_all_of_it(self):
        _, seen = prepare(gradient(90, 30), (3, 20, 20), Preprocessing(resize="stretch"))
        pixels = np.asarray(seen)
        assert pixels[0, 0, 0] < 12
        assert pixels[-1, -1, 0] > 243
        assert pixels[-1, -1, 1] > 243

    def test_fit_keeps_all_of_it_between_black_bars(self):
        _, seen = prepare(Image.new("RGB", (90, 30), "white"), (3, 30, 30), Preprocessing(resize="fit"))
        pixels = np.asarray(seen)
        assert np.all(pixels[10:20] == 255)
        assert np.all(pixels[:10] == 0)
        assert np.all(pixels[20:] == 0)
        _, thin = prepare(Image.new("RGB", (1000, 1), "white"), (3, 8, 8), Preprocessing(resize="fit"))
        assert np.asarray(thin).max() == 255

    def test_enlarges_small_pictures(self):
        picture = Image.new("RGB", (2, 3), (7, 8, 9))
        for resize in ("crop", "stretch"):
            array, _ = prepare(picture, (3, 16, 12), Preprocessing(resize=resize))
            np.testing.assert_array_equal(
                array, np.broadcast_to(np.reshape([7, 8, 9], (3, 1, 1)), (3, 16, 12))
            )

    @settings(deadline=None)
    @given(
        image=st.tuples(st.integers(1, 60), st.integers(1, 60)),
        sample=st.tuples(st.sampled_from([1, 3]), st.integers(4, 20), st.integers(4, 20)),
        resize=st.sampled_from(["crop", "stretch", "fit"]),
        ratio=st.floats(0.3, 1),
        layout=st.sampled_from(["nchw", "nhwc"]),
        channels=st.sampled_from(["RGB", "BGR"]),
    )
    def test_the_result_fits_its_picture_and_the_bounds(self, image, sample, resize, ratio, layout, channels):
        shape = sample if layout == "nchw" else (*sample[1:], sample[0])
        how = Preprocessing(
            resize=resize, crop_ratio=ratio, channels=channels, scale=1 / 255, mean=(0.4,), std=(0.3,)
        )
        array, seen = prepare(random_picture(*image), shape, how)
        assert array.shape == shape
        assert seen.size == (sample[2], sample[1])
        again, _ = prepare(seen, shape, Preprocessing(**{**vars(how), "resize": "stretch"}))
        np.testing.assert_array_equal(again, array)
        low, high = bounds(how, shape)
        assert low.shape == high.shape == shape
        assert np.all(low <= array)
        assert np.all(array <= high)

    @pytest.mark.parametrize(
        ("shape", "preprocessing", "words"),
        [
            ((2048,), {}, "the network takes samples of shape (2048,): no picture"),
            ((4, 8, 8), {}, "(4, 8, 8)"),
            ((3, 8, 0), {}, "(3, 8, 0)"),
            ((3, 8, 3), {}, 'layout "nchw" or "nhwc"'),
            ((3, 8, 8), {"layout": "nhwc"}, "no picture in layout nhwc"),
            ((3, 8, 8), {"size": (8, 9)}, "pictures of size (8, 9), but the network takes (8, 8)"),
            ((1, 8, 8), {"mean": (1, 2, 3)}, "mean has 3 numbers, but the network takes 1 channel"),
            ((8, 8, 1), {"std": (1, 2, 3)}, "std has 3 numbers"),
        ],
    )
    def test_refuses_what_does_not_fit(self, shape, preprocessing, words):
        for function in (
            lambda how: prepare(gradient(8, 8), shape, how),
            lambda how: bounds(how, shape),
        ):
            with pytest.raises(InputError) as caught:
                function(Preprocessing(**preprocessing))
            assert words in str(caught.value)

    def test_the_layout_settles_an_ambiguous_shape(self):
        array, seen = prepare(gradient(9, 9), (3, 8, 3), Preprocessing(layout="nhwc", size=(3, 8)))
        assert array.shape == (3, 8, 3)
        assert seen.size == (8, 3)

    def test_refuses_to_make_a_huge_picture_out_of_a_thin_one(self):
        with pytest.raises(InputError, match="100000 x 1 pixels is too thin to be cropped to 224 x 224"):
            prepare(Image.new("RGB", (100_000, 1)), (3, 224, 224), PREPROCESSINGS["imagenet"])


def test_bounds_are_the_values_of_black_and_white():
    low, high = bounds(PREPROCESSINGS["imagenet"], (3, 2, 2))
    assert low.dtype == high.dtype == np.float32
    np.testing.assert_allclose(low[:, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6)
    np.testing.assert_allclose(high[:, 1, 1], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rtol=1e-6)
    low, high = bounds(PREPROCESSINGS["tf"], (2, 2, 1))
    np.testing.assert_array_equal(low, np.full((2, 2, 1), -1))
    np.testing.assert_array_equal(high, np.full((2, 2, 1), 1))


class TestFromJson:
    def read(self, tmp_path, text):
        path = tmp_path / "how.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return Preprocessing.from_json(path)

    def test_reads_every_field(self, tmp_path):
        fields = {
            "size": [24, 32],
            "resize": "fit",
            "crop_ratio": 1,
            "interpolation": "nearest",
            "channels": "BGR",
            "scale": 0.5,
            "mean": [1, 2.5, 3],
            "std": [4],
            "layout": "nhwc",
            "grayscale": True,
        }
        assert self.read(tmp_path, fields) == Preprocessing(
            (24, 32), "fit", 1, "nearest", "BGR", 0.5, (1, 2.5, 3), (4,), "nhwc", True
        )

    def test_absent_fields_keep_their_defaults(self, tmp_path):
        assert self.read(tmp_path, "{}") == Preprocessing() == PREPROCESSINGS["raw"]
        assert self.read(tmp_path, {"size": None, "layout": None}) == Preprocessing()

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "Expecting property name"),
            ("", "Expecting value"),
            ("[1]", "holds a list; expected a JSON object"),
            ('{"scale": 1, "scale": 2}', "the key 'scale' is given twice"),
            ({"sizes": 3, "Mean": 1}, "unknown keys 'sizes', 'Mean'; known are size, resize"),
            ({"size": 224}, "size is 224, expected two positive integers"),
            ({"size": [224, 0]}, "size is (224, 0), expected"),
            ({"size": [224.0, 224]}, "size is (224.0, 224), expected"),
            ({"resize": "pad"}, "resize is 'pad', expected 'crop' or 'stretch' or 'fit'"),
            ({"crop_ratio": 1.5}, "crop_ratio is 1.5, expected a number above 0 and up to 1"),
            ({"interpolation": ["bicubic"]}, "interpolation is ['bicubic'], expected"),
            ({"channels": "rgb"}, "channels is 'rgb', expected 'RGB' or 'BGR'"),
            ({"scale": "1/255"}, "scale is '1/255', expected a positive number"),
            ({"scale": True}, "scale is True"),
            ('{"scale": NaN}', "scale is nan"),
            ({"mean": 0.5}, "mean is 0.5, expected a list of 1 or 3 numbers"),
            ({"mean": [1, 2]}, "mean is (1, 2), expected"),
            ({"std": [1, 0, 1]}, "std is (1, 0, 1), expected a list of 1 or 3 positive numbers"),
            ({"std": []}, "std is ()"),
            ({"layout": "chw"}, "layout is 'chw', expected None or 'nchw' or 'nhwc'"),
            ({"grayscale": 1}, "grayscale is 1, expected true or false"),
        ],
    )
    def test_refuses(self, tmp_path, text, words):
        with pytest.raises(InputError) as caught:
            self.read(tmp_path, text)
        assert words in str(caught.value)
        assert "how.json" in str(caught.value)

    def test_lists_all_that_is_wrong(self, tmp_path):
        with pytest.raises(InputError) as caught:
            self.read(tmp_path, {"scale": 0, "channels": "RBG", "std": [-1]})
        assert all(name in str(caught.value) for name in ("scale is 0", "channels is 'RBG'", "std is (-1,)"))

    def test_refuses_files_it_cannot_read(self, tmp_path):
        with pytest.raises(InputError, match=r"missing\.json.*No such file"):
            Preprocessing.from_json(tmp_path / "missing.json")
        (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match="not UTF-8"):
            Preprocessing.from_json(tmp_path / "binary.json")
        (tmp_path / "deep.json").write_text("[" * 100_000)
        with pytest.raises(InputError, match="nested too deeply"):
            Preprocessing.from_json(tmp_path / "deep.json")


class TestReadArrays:
    def test_reads_npy_and_npz(self, tmp_path):
        a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.int64)
        np.save(tmp_path / "sample.npy", a)
        np.savez_compressed(tmp_path / "both.npz", zebra=b, ant=a)
        single, both = read_arrays(tmp_path / "sample.npy"), read_arrays(tmp_path / "both.npz")
        assert list(single) == ["sample"]
        assert list(both) == ["zebra", "ant"]
        for array in (single["sample"], both["ant"]):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, a)
        assert both["zebra"].dtype == np.int64

    def test_never_loads_pickles(self, tmp_path):
        np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
        np.savez(tmp_path / "objects.npz", a=np.array([print], object))
        for name in ("objects.npy", "objects.npz"):
            with pytest.raises(InputError, match="Python objects, which are never loaded"):
                read_arrays(tmp_path / name)

    def test_refuses_bad_files(self, tmp_path):
        np.save(tmp_path / "whole.npy", np.ones(1000))
        np.savez(tmp_path / "whole.npz", a=np.ones(1000))
        np.savez(tmp_path / "none.npz")
        for suffix in ("npy", "npz"):
            whole = (tmp_path / f"whole.{suffix}").read_bytes()
            (tmp_path / f"truncated.{suffix}").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "empty.npy").write_bytes(b"")
        (tmp_path / "text.npy").write_text("1 2 3")
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1%s,), }" % (
            b"0" * 13
        )
        (tmp_path / "huge.npy").write_bytes(header.ljust(127) + b"\n")
        for name in ("missing.npy", "truncated.npy", "truncated.npz", "empty.npy", "text.npy", "none.npz"):
            with pytest.raises(InputError) as caught:
                read_arrays(tmp_path / name)
            assert name in str(caught.value)
        with pytest.raises(InputError, match=r"huge\.npy"):
            read_arrays(tmp_path / "huge.npy")

    def test_refuses_what_is_not_real_numbers_and_lists_it(self, tmp_path):
        np.savez(
            tmp_path / "mixed.npz", good=np.ones(2), word=np.array(["a"]), z=np.ones(2, complex), none=[]
        )
        with pytest.raises(InputError) as caught:
            read_arrays(tmp_path / "mixed.npz")
        message = str(caught.value)
        assert "'word' has dtype <U1" in message
        assert "'z' has dtype complex128" in message
        assert "'none' has dtype float64 and shape (0,)" in message
        assert "'good'" not in message
