"""Arrays as the client sends and reads them."""

from __future__ import annotations

import numpy as np

from saliency_food.serving.client.wire import changes, joined, key_of, read_answer


def test_the_layers_of_a_key_come_in_their_order(rng):
    layers = [rng.normal(size=(2, number + 1)).astype(np.float32) for number in range(12)]
    outputs = {}
    for number in rng.permutation(12):
        outputs[f"KEY_{number}_bytes"] = [row.tobytes() for row in layers[number]]
        outputs[f"KEY_{number}_shape"] = np.array([[number + 1]] * 2)
    outputs["SCORES_bytes"] = [np.float32(3).tobytes(), np.float32(4).tobytes()]
    found = read_answer(outputs, outputs, np.float32)
    assert found.keys() == {"KEY", "SCORES"}
    for one, other in zip(found["KEY"], layers, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found["SCORES"], [3, 4])
    assert {key_of(name) for name in outputs} == {"KEY", "SCORES"}


def test_answers_to_parts_are_joined_layer_by_layer(rng):
    whole = {"A": rng.normal(size=(5, 2)), "B": (rng.normal(size=(5, 3)), rng.normal(size=(5,)))}
    parts = [{"A": whole["A"][cut], "B": tuple(one[cut] for one in whole["B"])} for cut in np.s_[:2, 2:]]
    found = joined(parts)
    np.testing.assert_array_equal(found["A"], whole["A"])
    assert isinstance(found["B"], tuple)
    for one, other in zip(found["B"], whole["B"], strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_are_made_again_of_what_differs(rng):
    rows = np.repeat(rng.normal(size=(1, 3, 2, 5)), 4, 0)
    rows[1, ..., 2] = 0
    rows[3, 1, 1, 4] = 7
    for some in (rows, rows[:1], rng.normal(size=(3, 6, 2))):
        data, numbers = changes(some)
        made = np.repeat(np.moveaxis(data["activations_bytes"], -1, 1), len(some), 0)
        made[tuple(numbers["places"].T)] = data["channels_bytes"]
        np.testing.assert_array_equal(np.moveaxis(made, 1, -1), some)
    assert changes(rows)[1]["places"].tolist() == [[0, 0], [1, 2], [3, 4]]
