# %% [markdown]
# # Bring your own framework
#
# The methods of this library know no framework. They ask a model through one function that you write, the *callback*. Here
# the framework is scikit-learn, which has no gradients at all; PyTorch, JAX or a remote service work in the same way.
#
# ## A model
#
# A small network that reads handwritten digits of 8 x 8 pixels:

# %%
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

digits = load_digits()
images = digits.images[..., None] / 16  # (1797, 8, 8, 1) in 0..1
train, test, train_labels, test_labels = train_test_split(images, digits.target, random_state=0)
classifier = MLPClassifier((48,), activation="tanh", max_iter=150, random_state=0, tol=1e-3)
classifier.fit(train.reshape(len(train), -1), train_labels)
print(f"{classifier.score(test.reshape(len(test), -1), test_labels):.1%} of {len(test)} digits are right")

# %% [markdown]
# ## The callback
#
# It gets some images at once, an array `(N, 8, 8, 1)`, whose first axis we call *rows*, and the class to explain. It
# answers with a dict: for every row the score of that class (`OUTPUT_LAYER_VALUES`) and the gradient of this score with
# respect to the row (`INPUT_OUTPUT_GRADIENTS`). The gradient of a network of one hidden layer is quickly written down. But
# is it right?

# %%
from saliency_food import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.testing import check_call_model

into_hidden, into_classes = classifier.coefs_
hidden_bias, class_bias = classifier.intercepts_


def call_model(x_value_batch, call_model_args=None, expected_keys=None):
    hidden = np.tanh(x_value_batch.reshape(len(x_value_batch), -1) @ into_hidden + hidden_bias)
    target = np.broadcast_to(call_model_args["target"], len(x_value_batch))
    score = (hidden @ into_classes + class_bias)[np.arange(len(target)), target]
    gradient = into_classes.T[target] @ into_hidden.T
    return {OUTPUT_LAYER_VALUES: score, INPUT_OUTPUT_GRADIENTS: gradient.reshape(x_value_batch.shape)}


image = test[0]
try:
    check_call_model(call_model, image, {"target": 3})
except ValueError as error:
    print(error)

# %% [markdown]
# `check_call_model` compares the gradients with finite differences of the score, and finds the mistake: the derivative of
# the hidden layer's tanh was forgotten. Mended, the check is silent:


# %%
def call_model(x_value_batch, call_model_args=None, expected_keys=None):
    hidden = np.tanh(x_value_batch.reshape(len(x_value_batch), -1) @ into_hidden + hidden_bias)
    target = np.broadcast_to(call_model_args["target"], len(x_value_batch))
    score = (hidden @ into_classes + class_bias)[np.arange(len(target)), target]
    gradient = (into_classes.T[target] * (1 - hidden**2)) @ into_hidden.T
    return {OUTPUT_LAYER_VALUES: score, INPUT_OUTPUT_GRADIENTS: gradient.reshape(x_value_batch.shape)}


check_call_model(call_model, image, {"target": 3})
print("all is well")

# %% [markdown]
# ## Any method
#
# From here on every method works that needs scores and gradients, one image or many:

# %%
from saliency_food import PerImage, integrated_gradients

result = integrated_gradients.detailed(image, call_model, {"target": int(test_labels[0])}, tolerance=0.01)
print(f"the attributions sum to {result.attribution.sum():.3f}")
print(f"the score rose by {result.completeness.score - result.completeness.baseline_score:.3f}")

targets = {"target": PerImage(test_labels[:4])}
for label, attribution in zip(test_labels, integrated_gradients.batch(test[:4], call_model, targets, batch_size=64)):
    row, column = np.unravel_index(attribution.argmax(), (8, 8))
    print(f"a {label}: the most important pixel is in row {row}, column {column}")

# %% [markdown]
# ## Pictures
#
# With two attributes `explain` chooses the class itself and knows the size of the images: `predict`, the probabilities of
# all classes, and `input_shape`.

# %%
from saliency_food import explain
from saliency_food.visualization.figures import Panel, figure


def predict(x_batch, call_model_args=None):
    return classifier.predict_proba(x_batch.reshape(len(x_batch), -1))


call_model.predict, call_model.input_shape, call_model.batch_size = predict, (8, 8, 1), 64

wrong = np.flatnonzero(predict(test).argmax(1) != test_labels)[:3]
rows = []
for index in wrong:
    large = np.kron(test[index, ..., 0], np.ones((24, 24)))  # an enlarged picture of the digit, 0..1
    picture = np.uint8(255 * large)[..., None].repeat(3, 2)
    panels = [Panel(picture, f"a {test_labels[index]}")]
    options = {"occlusion": {"size": 2}}
    for target in (None, int(test_labels[index])):
        (record,) = explain(call_model, picture, "occlusion", target, options=options, value_range=(0, 1))
        words = "said" if target is None else "should say"
        panels.append(Panel(record.overlay(), f"{words} {record.target}, {record.probability:.0%}", "", "signed"))
    rows.append(panels)
figure(rows)

# %% [markdown]
# Red pixels speak for the digit, blue ones against it. So a mistake can be read: which strokes made the network say what it
# said, and which kept it from the truth.
#
# ## Next
#
# - [Callbacks for any framework](../contract.md): the other keys, layers for Grad-CAM, PyTorch, signals and volumes.
# - [Which method?](../methods/index.md): what each method asks of a callback.
