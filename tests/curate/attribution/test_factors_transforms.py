from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from curate.attribution._facts import Border, Facts
from curate.attribution._transforms import FACTORS, invert, pad, proposals, recolor, relight, shrink, to_gray, turn

WHITE = Border((255, 255, 255), 1.0)
FACTS = Facts(chroma=60.0, edge=64.0, quality=None, border=WHITE, stretch=0.0, light=(190.0, 70.0))


def proposed(pool, target=FACTS):
    return {p.name: p for p in proposals(target, pool)}


def disk(background, ink=(220, 40, 40), edge=48):
    """A disk with soft edges, a hole of the background's color in it."""
    large = Image.new("RGB", (4 * edge, 4 * edge), background)
    draw = ImageDraw.Draw(large)
    draw.ellipse([32, 32, 160, 160], fill=ink)
    draw.ellipse([80, 80, 112, 112], fill=(255, 255, 255))
    return large.resize((edge, edge), Image.Resampling.BOX)


class TestProposals:
    def test_sets_that_agree_are_left_alone_but_for_turns(self):
        assert [p.name for p in proposals(FACTS, FACTS)] == list(FACTORS)
        assert [p.name for p in proposals(FACTS, FACTS) if p.steps] == ["orientation"]

    @pytest.mark.parametrize(
        ("changes", "name", "words"),
        [
            ({"chroma": 0.0}, "gray", "convert both to gray"),
            ({"edge": 28.0}, "resolution", "shrink both to 28 pixels (the target has more detail)"),
            ({"edge": 128.0}, "resolution", "shrink both to 64 pixels (the pool has more detail)"),
            ({"quality": 20}, "compression", "compress both as JPEG of quality 20"),
            ({"stretch": 0.3}, "aspect", "pad both to squares"),
            ({"light": (95.0, 35.0)}, "brightness", "multiply the pool's levels by 2.00 and add 0"),
        ],
    )
    def test_what_differs_is_matched(self, changes, name, words):
        found = proposed(replace(FACTS, **changes))
        assert [step.words for step in found[name].steps] == [words]
        assert [n for n, p in found.items() if p.steps and n != "orientation"] == [name]

    def test_the_lower_quality_of_both_counts(self):
        found = proposed(replace(FACTS, quality=85), replace(FACTS, quality=20))
        assert found["compression"].steps[0].words.endswith("quality 20")

    def test_another_background(self):
        black = replace(FACTS, border=Border((0, 0, 0), 1.0), light=(70.0, 80.0))
        assert [s.side for s in proposed(black)["background"].steps] == ["both", "both", "pool"]
        assert proposed(replace(black, border=Border((0, 0, 0), 0.3)))["background"].steps == ()

    def test_a_background_that_is_dark_as_all_the_rest_is_a_matter_of_brightness(self):
        dark = replace(FACTS, border=Border((127, 127, 127), 1.0), light=(95.0, 35.0), chroma=30.0)
        found = proposed(dark)
        assert found["background"].steps == ()
        assert found["gray"].steps == ()
        assert found["brightness"].steps

    def test_blank_sets_have_no_levels_to_scale(self):
        assert proposed(replace(FACTS, light=(255.0, 0.0)))["brightness"].steps == ()


class TestSteps:
    def test_gray_has_no_chroma(self):
        pixels = np.asarray(to_gray(disk((255, 255, 255))))
        assert (pixels.max(axis=2) == pixels.min(axis=2)).all()

    def test_shrink_keeps_small_pictures_and_the_aspect(self):
        assert shrink(Image.new("RGB", (60, 30)), edge=20).size == (40, 20)
        small = Image.new("RGB", (20, 19))
        assert shrink(small, edge=19) is small

    def test_relight_undoes_a_camera_setting(self):
        picture = disk((255, 255, 255))
        back = relight(relight(picture, gain=0.5, shift=64), gain=2.0, shift=-128)
        assert np.abs(np.subtract(back, picture, dtype=int)).max() <= 1

    def test_relight_clips(self):
        assert np.asarray(relight(disk((255, 255, 255)), gain=9, shift=-100)).max() == 255

    def test_turn_and_invert_undo_themselves(self):
        picture = disk((255, 255, 255))
        assert invert(invert(picture)) == picture
        quarter = turn(picture, by=Image.Transpose.ROTATE_90)
        assert turn(quarter, by=Image.Transpose.ROTATE_270) == picture

    def test_pad_puts_the_picture_in_the_middle(self):
        picture = Image.new("RGB", (10, 30), (9, 8, 7))
        assert pad(picture) == Image.new("RGB", (30, 30), (9, 8, 7))
        square = disk((0, 0, 0))
        assert pad(square) is square


class TestRecolor:
    def test_soft_edges_take_the_new_color_as_if_drawn_on_it(self):
        wanted, found = disk((255, 255, 255)), recolor(disk((0, 0, 0)), color=(255, 255, 255))
        gap = np.abs(np.subtract(wanted, found, dtype=int)).max(axis=2)
        assert gap.mean() < 0.5
        assert (gap > 24).mean() < 0.005

    def test_what_is_inside_keeps_the_color_of_the_background(self):
        found = recolor(disk((255, 255, 255)), color=(0, 0, 0))
        assert found.getpixel((24, 24)) == (255, 255, 255)
        assert found.getpixel((0, 0)) == (0, 0, 0)

    def test_pictures_without_a_plain_background_or_with_the_right_one_stay(self):
        picture = disk((255, 255, 255))
        assert recolor(picture, color=(250, 250, 250)) is picture
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8))
        assert recolor(noise, color=(0, 0, 0)) is noise

    def test_a_blank_picture_is_all_background(self):
        assert recolor(Image.new("RGB", (20, 20), "white"), color=(0, 0, 0)) == Image.new("RGB", (20, 20), "black")
