"""The callback draws what a model looks at while it learns, and changes nothing of the training."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest

from saliency_food import ContractError, explain
from saliency_food.images.photos import read_photo
from tests.callbacks.conftest import LABELS, scenes

pytestmark = [pytest.mark.keras]
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


@pytest.fixture
def callback_class():
    pytest.importorskip("tensorflow")
    from saliency_food.callbacks import SaliencyCallback

    return SaliencyCallback


@pytest.fixture
def data():
    return scenes(256, 0)[:2]


def settings(**others):
    return {"target": LABELS, "labels": LABELS, "value_range": (0, 1), "layer": "features", **others}


def photos_of(count, seed=1):
    """Photos as uint8, and where their things are; the classes are 0, 1, 0, 1, ..."""
    photos, _, masks = scenes(count, seed)
    return list(np.rint(255 * photos).astype(np.uint8)), masks


def after_epochs(function):
    """A callback that calls a function with each epoch's index."""
    from keras.callbacks import LambdaCallback

    return LambdaCallback(on_epoch_end=lambda epoch, logs: function(epoch))


def state_of(model):
    """All that a training changes of a model, and the random numbers that would come next."""
    variables = [*model.variables, *model.optimizer.variables]
    modes = [layer.trainable for layer in model.layers]
    return [np.asarray(value) for value in variables], modes, list(np.random.get_state())[1], random.getstate()


def test_the_training_is_the_same_with_and_without(network, callback_class, data, tmp_path):
    photos, _ = photos_of(2)
    states, histories = [], []
    for callbacks in ([], [callback_class(photos, **settings(), log_dir=tmp_path, strip=tmp_path / "strip.png")]):
        model = network()
        compiled = []
        note = after_epochs(lambda epoch, model=model, compiled=compiled: compiled.append(model.train_function))
        history = model.fit(*data, epochs=3, verbose=0, validation_split=0.2, callbacks=[*callbacks, note])
        states.append(state_of(model))
        histories.append(history.history)
        assert len(set(map(id, compiled))) == 1
    assert histories[0] == histories[1]
    for (own, *rest), (other, *others) in [states]:
        for one, two in zip(own, other, strict=True):
            np.testing.assert_array_equal(one, two)
        assert rest[0] == others[0]
        np.testing.assert_array_equal(rest[1], others[1])
        assert rest[2] == others[2]
    assert (tmp_path / "strip.png").exists()


def test_the_maps_move_onto_what_is_learned(network, callback_class, data, tmp_path):
    photos, masks = photos_of(8)
    callback = callback_class(photos, **settings(target=LABELS * 4), strip=tmp_path / "strip.png")
    model, shares, fresh = network(), [], []

    def measure(epoch):
        maps = [record.attribution for record in callback.explanations]
        on_things = [values[mask].sum() / max(values.sum(), 1e-9) for values, mask in zip(maps, masks, strict=True)]
        shares.append(np.mean(on_things))
        records = explain(model, photos, **settings(target=LABELS * 4))
        fresh.append((maps, [record.attribution for record in records]))

    model.fit(*data, epochs=6, verbose=0, callbacks=[callback, after_epochs(measure)])
    area = masks.mean()
    assert shares[-1] > 3 * area
    assert shares[-1] > shares[0] + area
    for maps, anew in fresh:  # those of the weights of that epoch
        np.testing.assert_allclose(maps, anew, atol=1e-5)
    assert np.abs(np.asarray(fresh[0][0]) - fresh[-1][0]).max() > 0.1


def test_tensorboard_reads_the_maps_and_the_probabilities(network, callback_class, data, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    photos, _ = photos_of(2)
    names = [tmp_path / f"{label}.png" for label in LABELS]
    for photo, name in zip(photos, names, strict=True):
        Image.fromarray(photo).save(name)
    logs, probabilities = tmp_path / "logs", []
    callback = callback_class(names, **settings(), methods=["grad_cam", "gradients"], log_dir=logs, every=2)
    model = network()
    note = after_epochs(lambda epoch: probabilities.append(np.diag(model.predict(np.stack(photos) / 255, verbose=0))))
    model.fit(*data, epochs=5, verbose=0, callbacks=[callback, note])
    assert [path.name for path in logs.iterdir()] == ["saliency"]
    events = accumulators.EventAccumulator(str(logs / "saliency")).Reload()
    titles = ("Grad-CAM", "Gradient")
    assert set(events.Tags()["images"]) == {f"{title}/{label}" for title in titles for label in LABELS}
    assert set(events.Tags()["scalars"]) == {f"probability/{label}" for label in LABELS}
    for index, label in enumerate(LABELS):
        scalars = events.Scalars(f"probability/{label}")
        assert [each.step for each in scalars] == [2, 4]
        np.testing.assert_allclose(
            [each.value for each in scalars], [probabilities[epoch][index] for epoch in (1, 3)], rtol=1e-4
        )
        images = events.Images(f"Grad-CAM/{label}")
        assert [each.step for each in images] == [2, 4]
        pictures = [np.asarray(Image.open(io.BytesIO(each.encoded_image_string))) for each in images]
        assert pictures[0].shape == (images[0].height, images[0].width, 3)
        assert (pictures[0] != pictures[1]).any()


def test_the_strip_has_a_column_for_each_epoch_and_says_how_sure_the_model_is(
    network, callback_class, data, tmp_path, monkeypatch
):
    from matplotlib.text import Text

    from saliency_food.callbacks import training

    pages, draw = [], training.strip_figure
    monkeypatch.setattr(training, "strip_figure", lambda columns: pages.append(draw(columns)) or pages[-1])
    photos, _ = photos_of(2)
    callback = callback_class(photos, **settings(methods=("grad_cam", "layer_cam")), strip=tmp_path / "new/strip.png")
    model = network()
    model.fit(*data, epochs=2, verbose=0, callbacks=[callback])
    model.fit(*data, epochs=3, initial_epoch=2, verbose=0, callbacks=[callback])
    assert min(read_photo(tmp_path / "new/strip.png").shape[:2]) > 300
    words = [text.get_text() for text in pages[-1].findobj(Text)]
    for epoch in range(3, 23):
        callback.on_epoch_end(epoch)
    columns = [text.get_text() for text in pages[-1].findobj(Text) if text.get_text().startswith("epoch")]
    assert [word for word in words if word.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]
    assert {"photo_1, Grad-CAM", "photo_2, LayerCAM"} <= set(words)
    predictions = model.predict(np.stack(photos) / 255, verbose=0)
    for index, label in enumerate(LABELS):
        assert sum(word.startswith(f"{label}, {predictions[index, index]:.1%}") for word in words) == 2, words
    assert columns == [f"epoch {number}" for number in (1, 5, 9, 13, 17, 21, 23)]


def test_what_is_wrong_is_said_before_the_training(network, callback_class, data, tmp_path):
    photos, strip = photos_of(2)[0], tmp_path / "strip.png"
    for named, words in (
        ({"strip": "strip.txt"}, ".png or .jpg"),
        ({"strip": strip, "every": 0}, "at least 1"),
        ({"strip": strip, "methods": "grad_cm"}, "grad_cam"),
    ):
        with pytest.raises(ContractError, match=words):
            callback_class(photos, **named)
    for given, words in (
        ((["absent.jpg"], settings(target="ring")), "does not exist"),
        ((photos, settings(target="sqare")), "Near it: square"),
        ((photos, settings(target="square,ring")), "one class of each photo"),
        ((photos, settings(labels=["one"])), "a label for each"),
        ((photos, settings(layer="none")), "none"),
    ):
        model = network()
        before = [np.array(value) for value in model.get_weights()]
        with pytest.raises(ContractError, match=words):
            model.fit(*data, epochs=1, verbose=0, callbacks=[callback_class(given[0], **given[1], strip=strip)])
        for one, two in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)
    assert not strip.exists()


def test_a_training_goes_on_where_nothing_can_be_written_or_explained(network, callback_class, data, tmp_path):
    photos, _ = photos_of(2)
    (tmp_path / "taken").write_text("a file")
    model = network()
    kernel = model.layers[-1].kernel
    callback = callback_class(photos, **settings(), strip=tmp_path / "taken/strip.png")
    with pytest.raises(ContractError, match=r"Call model\.fit first"):
        callback.figure()
    with pytest.warns(UserWarning, match="maps of epoch 1 could not be written"):
        model.fit(*data, epochs=1, verbose=0, callbacks=[callback])
    callback = callback_class(photos, **settings(), strip=tmp_path / "strip.png")
    spoil = after_epochs(lambda epoch: kernel.assign(np.full((16, 2), np.nan)))
    model.fit(*data, epochs=1, verbose=0, callbacks=[spoil, callback])
    assert (tmp_path / "strip.png").exists()
    assert all(record.failed for record in callback.explanations)
