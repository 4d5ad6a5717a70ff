import numpy as np
import pytest
from PIL import Image

from curate.attribution._facts import Facts, border_color, effective_edge, jpeg_quality, recompress


def noise(size, seed=0, low=0, high=256):
    """Sharp pictures: every pixel on its own."""
    pixels = np.random.default_rng(seed).integers(low, high, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def blocks(size, seed=0, cell=5):
    """Pictures of plain patches, as graphics have them, their corners on no grid of 8."""
    small = np.random.default_rng(seed).integers(0, 256, (size[1] // cell + 1, size[0] // cell + 1, 3), np.uint8)
    return Image.fromarray(small.repeat(cell, 0).repeat(cell, 1)[: size[1], : size[0]])


class TestEdge:
    @pytest.mark.parametrize("size", [28, 64, 128])
    def test_sharp_pictures_hold_all_their_pixels(self, size):
        assert effective_edge([noise((size, size), s) for s in range(6)], 128) == size

    def test_never_above_the_encoders_edge_and_by_the_shorter_side(self):
        assert effective_edge([noise((300, 300))], 128) == 128
        assert effective_edge([noise((90, 60))], 128) == 60

    @pytest.mark.parametrize(("small", "large"), [(28, 64), (28, 128), (48, 128), (28, 300)])
    def test_enlarged_pictures_are_found(self, small, large):
        pictures = [noise((small, small), s).resize((large, large), Image.Resampling.BICUBIC) for s in range(6)]
        assert effective_edge(pictures, 128) == pytest.approx(small, rel=0.15)

    def test_darkening_leaves_it(self):
        pictures = [noise((32, 32), s).resize((128, 128), Image.Resampling.BICUBIC) for s in range(4)]
        darker = [p.point(lambda level: level // 2) for p in pictures]
        assert effective_edge(darker, 128) == pytest.approx(effective_edge(pictures, 128), rel=0.1)

    def test_blank_pictures(self):
        assert effective_edge([Image.new("RGB", (40, 40), "white")], 128) == 40


class TestQuality:
    @pytest.mark.parametrize("quality", [20, 50, 85])
    def test_found_in_the_pixels(self, quality):
        pictures = [recompress(blocks((96, 80), s), quality) for s in range(6)]
        assert jpeg_quality(pictures) == quality

    def test_none_where_there_was_none(self):
        assert jpeg_quality([blocks((96, 96), s) for s in range(6)]) is None
        assert jpeg_quality([noise((64, 64), s) for s in range(6)]) is None

    def test_blank_and_tiny_pictures_tell_nothing(self):
        assert jpeg_quality([Image.new("RGB", (64, 64), "white")] * 3) is None
        assert jpeg_quality([noise((12, 12))]) is None

    def test_the_middle_of_a_large_picture_keeps_its_grid(self):
        assert jpeg_quality([recompress(blocks((500, 330), s), 20) for s in range(4)]) == 20


class TestSet:
    def test_of_one_color(self):
        facts = Facts.of([Image.new("RGB", (20, 10), (200, 100, 100))] * 3, edge=64)
        assert facts.chroma == 100
        assert facts.stretch == pytest.approx(np.log(2))
        assert facts.border.color == (200, 100, 100)
        assert facts.border.share == 1.0
        assert facts.light[1] == pytest.approx(0.0, abs=1e-6)

    def test_light_is_over_all_pixels_of_all_pictures(self):
        facts = Facts.of([Image.new("RGB", (8, 8), "white"), Image.new("RGB", (30, 8), "black")], edge=64)
        assert facts.light == pytest.approx((127.5, 127.5))

    def test_borders(self):
        framed = Image.new("RGB", (30, 30), (10, 20, 30))
        framed.paste((255, 0, 0), (5, 5, 25, 25))
        color, plain = border_color(framed)
        assert color.tolist() == [10, 20, 30]
        assert plain
        assert not border_color(noise((30, 30)))[1]
        assert Facts.of([framed, noise((30, 30))], edge=64).border.share == 0.5
