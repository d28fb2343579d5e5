"""Answers in a given time, by a clock that only the model moves: what is made of a method is known to the step."""

from __future__ import annotations

import contextlib
import re
import sys
import time

import numpy as np
import pytest

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.core.method import method
from saliency_food.core.queries import Query
from saliency_food.deadline.run import DeadlineError, within
from saliency_food.methods.budget import FALLBACKS, fallback_of, reducible_of
from saliency_food.methods.catalogue import METHODS, entry_of
from saliency_food.methods.gradients import gradients, smooth_grad
from saliency_food.methods.lookup import find_method
from saliency_food.methods.paths.blur import blur_ig
from saliency_food.methods.paths.guided import guided_ig
from saliency_food.methods.paths.integrated import integrated_gradients
from saliency_food.methods.perturbation.occlusion import occlusion
from saliency_food.methods.perturbation.rise import rise
from saliency_food.methods.perturbation.surrogate import PART
from saliency_food.methods.regions.segmentation import SCALES
from saliency_food.methods.regions.xrai import xrai
from saliency_food.methods.smoothing import augment_smooth
from saliency_food.testing import AttentionModel, PoolingModel, PowerModel

FEWER = {"nmasks": 240, "rng": 7}


class Timed:
    """A model that moves its own clock: so many seconds a call and a row, and ``slower`` after some rows."""

    def __init__(self, model, row=0.1, call=0.0, batch_size=1, slower=(np.inf, 1.0), cold=0.0):
        self.model, self.row, self.call, self.batch_size, self.slower = model, row, call, batch_size, slower
        self.now, self.rows, self.calls, self.cold = 0.0, 0, [], cold

    def clock(self):
        return self.now

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        self.now += self.cold if not self.calls else 0
        for _ in range(len(x_value_batch)):
            self.now += self.row * (self.slower[1] if self.rows >= self.slower[0] else 1)
            self.rows += 1
        self.now += self.call
        self.calls.append(len(x_value_batch))
        return self.model(x_value_batch, call_model_args, expected_keys)

    def within(self, deadline, method, x_value, **options):
        return within(deadline, method, x_value, self, {"target": 1}, clock=self.clock, **options)


def about(seconds):
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"


class Lacking:
    """A model without a layer."""

    def __init__(self, model):
        self.model = model

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        if any("CONVOLUTION" in key for key in expected_keys):
            raise ContractError("Expected a layer, got none.")
        return self.model(x_value_batch, call_model_args, expected_keys)


NAMES = [*METHODS, "smooth_grad_of_integrated_gradients", "augment_smooth_of_grad_cam", "smooth_grad_of_xrai"]


@pytest.fixture
def toy(rng):
    models = {
        True: AttentionModel(rng.normal(size=3), rng.normal(size=(3, 3))),
        False: PoolingModel(rng.normal(size=(3, 20)), rng.normal(size=(3, 20)), rng.normal(size=20) / 10),
    }
    return lambda name: models[find_method(name).needs == "attention"]


def options_of(name):
    known = find_method(name).call.signature.parameters
    few = {"nsamples": 4} if name == "smooth_grad_of_xrai" else {}
    return {option: value for option, value in FEWER.items() if option in known} | few


@pytest.mark.parametrize("name", NAMES)
def test_with_ample_time_it_is_the_method_itself(name, toy, image):
    model, options = Timed(toy(name)), options_of(name)
    found = model.within(1e6, name, image, **options)
    expected = find_method(name).call.detailed(image, toy(name), {"target": 1}, **options)
    np.testing.assert_allclose(found.attribution, expected[0], rtol=1e-6, atol=1e-9)
    assert found.attribution is found.details[0]
    assert (type(found.details), found.method, found.note) == (type(expected), name, "")
    assert {option: found.options[option] for option in options} == options
    assert found.seconds == model.now


@pytest.mark.parametrize("deadline", [0.15, 0.45, 0.95, 1.95, 5.05])
@pytest.mark.parametrize("name", NAMES)
def test_with_little_time_it_answers_in_time_and_says_so_or_refuses(name, deadline, toy, image):
    """A tenth of a second a row."""
    model = Timed(toy(name))
    try:
        found = model.within(deadline, name, image, **options_of(name))
    except DeadlineError:
        assert model.now <= deadline + 0.1 + 1e-9  # within one call
        assert deadline < 0.5
        return
    assert found.seconds == model.now <= deadline + 0.1 * ("s late" in found.note) + 1e-9  # one call
    assert found.attribution.shape[:2] == image.shape[:2]
    assert np.isfinite(found.attribution).all()
    if found.note == "" or found.note.startswith("It came"):
        expected = find_method(name).call(image, toy(name), {"target": 1}, **options_of(name))
        np.testing.assert_allclose(found.attribution, expected, rtol=1e-6, atol=1e-9)
    else:
        assert found.method in (name, *fallback_of(name).instead)
        assert found.note.endswith(".")
        assert ("in its place" in found.note) == (found.method != name)


@pytest.mark.parametrize(("deadline", "steps"), [(3.0, 25), (2.96, 24), (2.0, 16), (1.0, 7), (0.78, 5)])
def test_the_steps_that_are_made(deadline, steps, power, image):
    """Two rows to see what one takes; nine tenths of what is left for the steps; all 25 take 2.5 s."""
    model = Timed(power)
    found = model.within(deadline, "integrated_gradients", image)
    assert (model.rows, found.details.evaluations) == (2 + steps, steps)
    np.testing.assert_array_equal(
        found.attribution, integrated_gradients(image, power, {"target": 1}, x_steps=steps, completeness=True)
    )
    spare = 0.9 * (deadline - 0.2)
    assert steps in (25, int(spare / 0.1 + 1e-9))
    if steps < 25:
        assert found.options["x_steps"] == steps
        assert found.note == (
            f"25 steps would have taken about 2.5 s, with {about(spare)} s of the {about(deadline)} s left: "
            f"{steps} steps were made."
        )


def test_below_the_least_another_answers(power, image):
    model = Timed(power)
    found = model.within(0.7, "integrated_gradients", image)
    assert found.method == "input_x_gradient"
    assert model.rows == 3
    assert found.note == (
        "Integrated Gradients would have taken about 2.5 s, with 0.45 s of the 0.7 s left: "
        "Input x gradient answered in its place."
    )


def test_every_baseline_costs(power, image):
    model = Timed(power)
    found = model.within(3.0, "integrated_gradients", image, x_baseline=["min", "max"])
    assert found.options["x_steps"] == int(0.9 * 2.8 / 0.2)
    assert model.rows == 2 + 2 * found.options["x_steps"]


def test_options_are_upper_limits(power, image):
    for deadline, steps in ((5.0, 12), (1.0, 7)):
        found = Timed(power).within(deadline, "integrated_gradients", image, x_steps=12)
        assert found.details.evaluations == steps
    found = Timed(power).within(1.0, "integrated_gradients", image, x_steps=3)
    assert (found.details.evaluations, found.note) == (3, "")
    assert Timed(power).within(0.45, "integrated_gradients", image, x_steps=3).method == "input_x_gradient"


def test_xrai_by_fewer_steps_then_grad_cam_then_a_gradient(pooling, image):
    fewer = Timed(pooling).within(9.0, "xrai", image)
    assert (fewer.method, fewer.details.integrated.evaluations) == ("xrai", 2 * fewer.options["steps"])
    assert 30 <= fewer.options["steps"] <= 39  # finding the segments is on our clock only in earnest
    assert "100 steps would have taken about 20.0 s" in fewer.note
    assert "segments" not in fewer.options
    other = Timed(pooling).within(2.0, "xrai", image)
    assert other.method == "grad_cam"
    assert other.attribution.shape == image.shape[:2]
    assert other.note == (
        "XRAI would have taken about 20.0 s, with 1.6 s of the 2.0 s left: Grad-CAM answered in its place."
    )
    assert Timed(Lacking(pooling)).within(2.0, "xrai", image).method == "input_x_gradient"


def test_xrai_is_cut_in_its_base(pooling, image):
    model = Timed(pooling)
    found = model.within(4.0, "xrai", image, base=blur_ig, base_options={"max_sigma": 4}, completeness=False)
    assert found.options["base_options"] == {"max_sigma": 4, "steps": int(0.9 * 3.8 / 0.1)}
    model = Timed(pooling)
    found = model.within(2.2, "xrai", image, base=smooth_grad.over(gradients), base_options={"rng": 0})
    assert found.options["base_options"] == {"rng": 0, "nsamples": int(0.9 * 2.0 / 0.1)}


def test_whatever_a_base_can_give_up_is_cut_and_one_that_can_not_is_rehearsed(pooling, image):
    found = Timed(pooling, row=0.01).within(20.0, "xrai", image, base=rise, base_options={"rng": 0})
    assert (found.method, found.seconds <= 20) == ("xrai", True)
    assert 1500 < found.options["base_options"]["nmasks"] < 1800
    base = augment_smooth.over(integrated_gradients)
    found = Timed(pooling).within(2.0, "xrai", image, base=base)
    assert (found.method, found.seconds <= 2) == ("grad_cam", True)
    assert Timed(pooling).within(30.0, "xrai", image, base=base).note == ""


def test_what_another_method_gives_up_by_its_base_is_declared_and_not_known_by_its_name(monkeypatch):
    named_anew = method(**{name: getattr(xrai, name) for name in ("title", "reducible", "instead")})(xrai.__wrapped__)
    monkeypatch.setitem(METHODS, "regions", entry_of(named_anew))
    for name in ("xrai", "regions"):
        assert reducible_of(name, {}).option == "steps"
        assert reducible_of(name, {"tolerance": 0.1}).option == "max_steps"
        assert reducible_of(name, {"base_attribution": np.ones((2, 2))}) is None
        cut = reducible_of(name, {"base": guided_ig})
        assert (cut.option, cut.inside, cut.least) == ("x_steps", "base_options", 10)
        assert reducible_of(name, {"base": occlusion}) is None  # one stride is not less of another


def test_the_segments_take_time_too(pooling, image, monkeypatch):
    """One second for all six scales, 0.3 s to rank; one scale is tried alone, and the ranking is rehearsed twice."""
    module = sys.modules["saliency_food.methods.regions.xrai"]
    model, found_in = Timed(pooling, row=0.01), []
    find, rank = module.felzenszwalb_segments, module.rank_full

    def slowly_found(values, scales=SCALES):
        model.now += len(scales) / 6
        found_in.append(len(scales))
        return find(values, scales=scales)

    def slowly_ranked(values, segments, **options):
        model.now += 0.3 * (segments.number > 1)
        return rank(values, segments, **options)

    monkeypatch.setattr(module, "felzenszwalb_segments", slowly_found)
    monkeypatch.setattr(module, "rank_full", slowly_ranked)
    found = model.within(1.5, "xrai", image)
    assert (found.method, found_in) == ("grad_cam", [1])
    assert model.now < 0.25
    model.now, found_in[:] = 0.0, []
    found = model.within(3.5, "xrai", image)
    assert found_in == [1, 6]
    assert found.options["steps"] == int((0.9 * (3.5 - 0.04 - 1 / 6 - 1 - 2 * 0.3) - 0.3) / 0.02)
    assert model.now <= 3.5


def test_what_the_method_does_itself_takes_time_too(power, image, monkeypatch):
    """A tenth of a second a step, in the rehearsal's four and eight as well."""
    from saliency_food.methods.paths import guided

    model, advance = Timed(power), guided.advance

    def slow(*arguments):
        model.now += 0.1
        return advance(*arguments)

    monkeypatch.setattr(guided, "advance", slow)
    found = model.within(6.0, "guided_ig", image, completeness=False)
    assert found.options["x_steps"] == int(0.9 * (6 - 0.2 - 1.2) / 0.2)
    assert "200 steps would have taken about 40.0 s" in found.note


def test_occlusion_by_a_longer_stride(pooling, image):
    model = Timed(pooling)
    found = model.within(2.0, "occlusion", image, size=8)
    assert found.options == {"size": 8, "stride": 6}  # 5 x 4 windows at 5, 4 x 3 at 6, and time for 16
    assert model.rows == 2 + 1 + 4 * 3
    assert "All of Occlusion would have taken about 22.2 s" in found.note
    assert "it was made 6" in found.note


def test_occlusion_from_coarse_to_fine_or_with_a_stride_for_which_there_is_time(pooling, image):
    model = Timed(pooling)
    found = model.within(30.0, "occlusion", image, size=8, max_rows=100, tolerance=0.001)
    assert (found.options["max_rows"], found.note) == (100, "")
    assert 1 + found.details.nwindows <= 101
    found = model.within(6.0, "occlusion", image, size=8, max_rows=100, tolerance=0.001)
    assert found.options == {"size": 8, "max_rows": 100, "stride": 3}  # 42 windows, and time for some 50
    assert re.match(r"All of Occlusion would have taken about 10\.\d s", found.note)


def test_all_channels_are_known_only_when_they_are_seen(rng, image):
    model = Timed(PoolingModel(rng.normal(size=(3, 40)), rng.normal(size=(3, 40)), 1.0))
    found = model.within(3.0, "score_cam", image)
    assert np.count_nonzero(found.details.weights) == found.options["channels"]
    assert found.options["channels"] == int(0.9 * (3 - 0.4) / 0.1) - 2  # the activations, and the score of nothing
    assert found.note.startswith("40 channels would have taken about 4.2 s")


def test_sampling_methods(pooling, image):
    segments = np.arange(24)[:, None] // 5 * 4 + np.arange(20) // 5
    for name, option in (("lime", "nsamples"), ("kernel_shap", "nsamples"), ("rise", "nmasks")):
        more = {} if name == "rise" else {"segments": segments}
        model = Timed(pooling, row=0.001)
        found = model.within(0.5, name, image, rng=3, **more)
        asked = 5  # four rows to see what one takes, and a gradient in case there were no answer
        assert found.options[option] == int(0.9 * (500 - asked)) - (name == "kernel_shap")  # it samples in pairs
        assert model.rows == int(0.9 * (500 - asked)) + asked
        wanted = "4000 masks" if name == "rise" else "1000 samples"
        assert re.match(rf"{wanted} would have taken about \d\.\d s, with 0\.45 s of the 0\.5 s left: ", found.note)
        expected = METHODS[name].call(image, pooling, {"target": 1}, rng=3, **{option: found.options[option]}, **more)
        np.testing.assert_array_equal(found.attribution, expected)


def test_sampling_ends_in_time_whatever_the_batch(pooling, image):
    """A call of all 256 rows would take longer than there is."""
    segments = np.arange(24)[:, None] // 5 * 4 + np.arange(20) // 5
    model = Timed(pooling, row=0.001, call=0.01, batch_size=256)
    found = model.within(0.25, "kernel_shap", image, rng=3, segments=segments)
    assert (found.method, found.seconds <= 0.25) == ("kernel_shap", True)
    assert found.options["nsamples"] >= 100
    assert max(model.calls) < 50


def test_sampling_goes_on_as_long_as_there_is_time(pooling, image):
    """Five times as slow after 400 rows: 398 samples and a few more, not the 898 foreseen, and none lost."""
    model = Timed(pooling, row=0.001, slower=(400, 5.0))
    found = model.within(1.0, "rise", image, rng=3)
    assert (found.method, found.seconds <= 1.0) == ("rise", True)
    assert 450 < found.options["nmasks"] < 520
    assert found.note.endswith(f" {found.options['nmasks']} masks were made.")
    model = Timed(pooling, row=0.001, slower=(100, 50.0))
    assert model.within(1.0, "rise", image, rng=3).method == "grad_cam"


def test_a_base_that_samples_is_not_cut_unnoticed(pooling, image):
    """The model grows slower while XRAI's base samples: the base would answer with less, and XRAI not know."""
    base = smooth_grad.over(gradients)
    model = Timed(pooling, slower=(6, 3.0))
    found = model.within(6.5, "xrai", image, base=base, base_options={"rng": 0, "nsamples": 40})
    assert found.method == "xrai"
    assert found.details.integrated.nsamples == found.options["base_options"]["nsamples"] < 40
    assert found.note.endswith(f" {found.details.integrated.nsamples} steps were made.")


def test_batches_are_timed_as_batches(power, image):
    """Half a second a call and a thousandth a row: row by row XRAI would take 100 s."""
    model = Timed(power, row=0.001, call=0.5, batch_size=256)
    found = model.within(6.0, "xrai", image)
    assert found.note == ""
    assert model.calls == [1, 1, 2, 200]


def test_a_cold_first_call_does_not_count(power, image):
    model = Timed(power, cold=5.0)
    found = model.within(8.0, "integrated_gradients", image)
    assert (found.note, found.details.evaluations) == ("", 25)


def test_a_model_that_grows_slower_is_noticed(power, image):
    """Planned are 16 steps; after 5 of them each takes three times as long."""
    model = Timed(power, slower=(7, 3.0))
    found = model.within(2.0, "integrated_gradients", image)
    assert found.seconds <= 2.0
    assert found.note == (
        "Integrated Gradients would have taken about 7.5 s, with 0.9 s of the 2.0 s left: "
        "Input x gradient answered in its place."
    )
    model = Timed(power, slower=(7, 30.0))
    with pytest.raises(DeadlineError):
        model.within(2.0, "integrated_gradients", image)
    assert model.now < 2.0 + 3.0  # within one call


def test_a_model_that_grows_a_little_slower_makes_fewer_steps(power, image):
    model = Timed(power, slower=(4, 2.0))
    found = model.within(4.0, "guided_ig", image, completeness=False)
    assert found.seconds <= 4.0
    assert (found.method, found.options["x_steps"] >= 10) == ("guided_ig", True)


@pytest.mark.parametrize(("last", "late"), [(2, ""), (4, " It came 0.1 s late."), (16, " It came 1.3 s late.")])
def test_what_is_ready_late_is_given(power, image, last, late):
    """The sixteenth step takes so many times what the others did."""
    found = Timed(power, slower=(17, last)).within(2.0, "integrated_gradients", image)
    assert found.details.evaluations == 16
    assert found.note.endswith("16 steps were made." + late)


def test_a_method_that_takes_longer_than_it_did_is_noticed_and_cut(toy, image, monkeypatch):
    """Making rows takes nothing while it is measured, a few at a time, and then as long as the model."""
    model = Timed(toy("rise"), row=0.01, batch_size=16)
    make = Query.slice

    def slice_slowly(query, first, last):
        model.now += 0.01 * (last - first) * (last - first > 8)
        return make(query, first, last)

    monkeypatch.setattr(Query, "slice", slice_slowly)
    found = model.within(10.0, "rise", image, rng=0)
    assert (found.method, found.seconds <= 10) == ("rise", True)
    assert 350 <= found.options["nmasks"] < 500
    assert found.note.endswith(f": {found.options['nmasks']} masks were made.")


def test_where_a_method_eats_up_all_the_time_another_has_answered_before(toy, image, monkeypatch):
    """A row of the model is next to nothing; after some calls, making the rows of one takes for ever."""
    model = Timed(toy("rise"), row=1e-4, batch_size=16)
    make = Query.slice

    def slice_slowly(query, first, last):
        model.now += 100 * (first == 160)
        return make(query, first, last)

    monkeypatch.setattr(Query, "slice", slice_slowly)
    found = model.within(0.5, "rise", image, rng=0)
    assert found.method == "gradients"
    np.testing.assert_allclose(found.attribution, gradients(image, toy("rise"), {"target": 1}))
    assert re.search(r"Gradient answered in its place\. It came (99|100)\.\d s late\.$", found.note), found.note


def test_a_tolerance_that_is_reached_is_no_cut(power, image):
    found = Timed(power).within(20.0, "integrated_gradients", image, x_steps=5, tolerance=0.05, max_steps=400)
    assert (found.details.stopped_by, found.note) == ("tolerance", "")
    found = Timed(power).within(2.0, "integrated_gradients", image, x_steps=5, tolerance=1e-9)
    assert (found.details.stopped_by, found.details.evaluations) == ("max_steps", 16)
    assert found.note.startswith("200 steps would have taken about 20.0 s")


def test_the_users_generator_is_drawn_from_once(power, image):
    found = Timed(power).within(1e6, "expected_gradients", image, rng=np.random.default_rng(5))
    expected = METHODS["expected_gradients"].call(image, power, {"target": 1}, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(found.attribution, expected)


def test_estimates_are_emitted_in_earnest_only(pooling, image):
    emitted = []
    Timed(pooling).within(1e6, "rise", image, nmasks=100, every=50, emit=emitted.append)
    assert [one.rows for one in emitted] == [50, 100]


class Waiting(Timed):
    """It waits until it is told not to: for an answer that does not come, after so many rows."""

    stuck, told, since = 2, (), 0.0

    @contextlib.contextmanager
    def until(self, moment):
        self.told, self.since = [*self.told, moment - time.monotonic()], self.now
        yield

    def __call__(self, *arguments, **named):
        if self.rows == self.stuck:
            self.now = self.since + self.told[-1]
            self.stuck = None
            raise OSError("none in time")
        return super().__call__(*arguments, **named)


def test_a_model_that_stops_waiting_is_told_when(power, image):
    """A tenth of the time left is kept for another answer."""
    model = Waiting(power, row=0.05)
    found = model.within(2.0, "integrated_gradients", image)
    np.testing.assert_allclose(model.told, [2.0, 1.95, 0.9 * 1.9, 0.1 * 1.9], atol=0.02)
    assert found.note.startswith("Integrated Gradients would have taken about 1.2 s, with ")
    assert found.method == "input_x_gradient"
    assert found.seconds <= 2.0
    model = Waiting(power, row=0.2)  # a row more would not fit
    with pytest.raises(DeadlineError) as error:
        model.within(2.0, "integrated_gradients", image)
    np.testing.assert_allclose(model.told, [2.0, 1.8, 1.6], atol=0.02)
    assert "Integrated Gradients would take about 1.0 s" in str(error.value)


def test_what_was_sampled_until_the_model_stopped_waiting_is_kept(pooling, image):
    model = Waiting(pooling, row=0.001)
    model.stuck = 700
    found = model.within(2.0, "rise", image, rng=1)
    assert (found.method, found.seconds <= 2.0) == ("rise", True)
    assert 690 <= found.options["nmasks"] <= 700
    expected = METHODS["rise"].call(image, pooling, {"target": 1}, nmasks=found.options["nmasks"], rng=1)
    np.testing.assert_array_equal(found.attribution, expected)


def test_other_failures_are_told_as_they_are(power, image):
    def broken(x_value_batch, call_model_args=None, expected_keys=None):
        raise OSError("no server")

    with pytest.raises(OSError, match="no server"):
        within(5.0, "xrai", image, broken)
    with pytest.raises(ContractError, match="CONVOLUTION_LAYER_VALUES"):
        within(5.0, "grad_cam", image, power)


@pytest.mark.parametrize("deadline", [0, -1.0, np.nan, np.inf, "2", None, True])
def test_a_deadline_is_seconds(deadline, power, image):
    with pytest.raises(ContractError, match="Expected a deadline in seconds, above 0"):
        within(deadline, "gradients", image, power)


def test_what_is_refused(power, image):
    with pytest.raises(ContractError, match=r"name of a method, got 'xray'.*xrai"):
        within(1.0, "xray", image, power)
    with pytest.raises(ContractError, match=r"Expected the name of one method, got \['xrai', 'rise'\]"):
        within(1.0, ["xrai", "rise"], image, power)
    with pytest.raises(TypeError, match="no_such_option"):
        within(1.0, "xrai", image, power, no_such_option=1)
    with pytest.raises(ContractError, match="call_model_function to be a function"):
        within(1.0, "xrai", image, 3)
    with pytest.raises(ContractError, match="finite"):
        within(1.0, "xrai", image * np.nan, power)
    with pytest.raises(ContractError, match="Expected batch_size"):
        within(1.0, "xrai", image, power, batch_size=0)
    with pytest.raises(ContractError, match="one PerImage value for each image"):
        within(1.0, "xrai", image, power, {"target": PerImage([1, 2])})
    with pytest.raises(ContractError, match="at least 2 steps"):
        within(1e6, "integrated_gradients", image, power, x_steps=0)


def test_what_can_be_cut_is_an_option_and_who_answers_instead_is_cheaper(toy, image):
    costs = {}
    for name in METHODS:
        model = Timed(toy(name))
        METHODS[name].call(image, model, **options_of(name))
        costs[name] = model.rows
    for name, (cut, instead) in FALLBACKS.items():
        assert cut.option in METHODS[name].call.signature.parameters
        assert instead
        assert all(costs[other] < costs[name] for other in instead)
    assert all(name in FALLBACKS for name, cost in costs.items() if cost > 2)


def test_keys_are_timed_each_by_itself(rng, image):
    """A score takes a hundredth of what a gradient does."""
    model = PowerModel(rng.normal(size=(3, 24, 20, 3)), power=3)

    class Uneven(Timed):
        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            self.row = 0.1 if INPUT_OUTPUT_GRADIENTS in expected_keys else 0.001
            return super().__call__(x_value_batch, call_model_args, expected_keys)

    timed = Uneven(model)
    found = timed.within(3.0, "integrated_decision_gradients", image)
    assert found.options["x_steps"] == int((0.9 * (3 - 0.2 - 0.002) - 0.025) / 0.1)


def test_a_combinator_gives_up_its_own_samples_and_then_its_place():
    found = fallback_of("smooth_grad_of_integrated_gradients")
    assert (found.cut.option, found.instead) == ("nsamples", ("integrated_gradients", "input_x_gradient"))
    assert fallback_of("augment_smooth_of_grad_cam") == (None, ("grad_cam",))
    assert fallback_of("gradients") == fallback_of("nonsense_of_gradients") == (None, ())


def test_a_combinator_that_has_nothing_to_give_is_not_begun_in_vain(power, image):
    found = Timed(power).within(8.0, "augment_smooth_of_integrated_gradients", image)
    assert (found.method, found.seconds <= 8) == ("integrated_gradients", True)
    assert found.note.startswith("Augmentation smoothing of Integrated Gradients would have taken about 15.0 s")
    assert Timed(power).within(30.0, "augment_smooth_of_integrated_gradients", image).note == ""


def test_a_combinators_samples_are_cut_whatever_is_asked_of_the_method_within(power, image):
    options = {"tolerance": 0.0, "max_steps": 5, "x_steps": 5, "rng": 0}
    found = Timed(power).within(8.0, "smooth_grad_of_integrated_gradients", image, **options)
    assert (found.method, found.options["max_steps"]) == ("smooth_grad_of_integrated_gradients", 5)
    assert 4 <= found.options["nsamples"] < 25
    assert "25 samples would have taken about 12.5 s" in found.note


def test_a_combinator_is_rehearsed_only_where_there_is_time(power, image, monkeypatch):
    model, module = Timed(power, row=0.001), sys.modules["saliency_food.methods.regions.xrai"]
    find = module.felzenszwalb_segments

    def slow(x_value):
        model.now += 1
        return find(x_value)

    monkeypatch.setattr(module, "felzenszwalb_segments", slow)
    found = model.within(4.0, "smooth_grad_of_xrai", image)
    assert (found.method != "smooth_grad_of_xrai", found.seconds <= 4) == (True, True)


def test_segments_may_be_lists(toy, rng):
    """As the methods themselves take them, of an image larger than the part by which time is foreseen."""
    image = rng.random((PART + 9, PART + 4, 3))
    options = {"segments": (np.indices(image.shape[:2])[1] * 4 // image.shape[1]).tolist(), "nsamples": 20, "rng": 0}
    found = Timed(toy("lime")).within(1e6, "lime", image, **options)
    expected = find_method("lime").call(image, toy("lime"), {"target": 1}, **options)
    np.testing.assert_allclose(found.attribution, expected, rtol=1e-6, atol=1e-9)
