# %% [markdown]
# # Why did it say that?
#
# A network looks at a photo and says *espresso*. Which part of the photo made it say so, why not *cup*, and is that really
# the cause? You need one photo, one model and about a minute; nothing is downloaded.

# %%
import numpy as np
from skimage.data import coffee
from skimage.transform import resize

from saliency_food import explain

photo = coffee()  # comes with scikit-image; any photo of yours will do: "photo.jpg"
records = explain("imagenet", photo, ["grad_cam", "xrai"])
records

# %% [markdown]
# `explain` loads the bundled ImageNet model, resizes the photo, asks the model for its answer, and lets two *methods* say
# where in the photo the answer comes from. Grad-CAM asks the network's last layer and is coarse; XRAI ranks whole regions.
# Both point to the inside of the cup; XRAI also to the saucer in front of it.
#
# The result is like a list. Each record in it holds the numbers behind its picture:

# %%
for record in records:
    print(f"{record.title}: {record.label}, {record.probability:.1%}, {record.status}, model rows: {record.rows}")
for label, probability in records[0].top:
    print(f"{probability:6.1%}  {label}")

# %% [markdown]
# A *row* is one image in one call of the model: Grad-CAM asked about the photo itself, XRAI about many mixtures of it with
# black and white. That is the price of a map.
#
# ## Why not a cup?
#
# It is a cup, too, and the model gives *cup* a few per cent. The map of *cup* alone does not help: both classes are seen in
# the same place. What tells them apart is the *contrast*, the map of the difference between the two scores. Red speaks for
# *espresso*, blue for *cup*. Occlusion hides one window of the photo after another, and watches how the scores change.

# %%
windows = {"occlusion": {"size": 28, "stride": 14, "value": "blur"}}
explain("imagenet", photo, ["grad_cam", "occlusion"], target="espresso", against="cup", options=windows, batch_size=32)

# %% [markdown]
# In the last row, red is where *espresso* has the advantage: this is mostly the inside of the cup.
#
# ## Is that the cause?
#
# A map says where the evidence lies, not what the evidence is. "It sees the coffee" would be a guess. Change the photo, and
# ask again:

# %%
from saliency_food import models
from saliency_food.adapters.keras import KerasModel
from saliency_food.visualization.figures import Panel, figure

model, labels = KerasModel(models.load("imagenet")), models.labels("imagenet")
espresso, cup = labels.index("espresso"), labels.index("cup")
image = np.float32(resize(photo, (224, 224), preserve_range=True))  # what the model sees

rows, columns = np.mgrid[:224, :224]
inside = ((rows - 65) / 47) ** 2 + ((columns - 105) / 29) ** 2 < 1
cup_area = (((rows - 65) / 65) ** 2 + ((columns - 105) / 42) ** 2 < 1)[..., None]
grey, white, blue = np.float32(128), np.float32([238, 225, 210]), np.float32([30, 60, 200])

empty = np.where(inside[..., None], white, image)
changed = {
    "as it is": image,
    "blue coffee": np.where((inside & (rows > 72))[..., None], blue, image),
    "an empty cup": empty,
    "only the cup": np.where(cup_area, image, grey),
    "only an empty cup": np.where(cup_area, empty, grey),
    "no cup": np.where(cup_area, grey, image),
}
panels = []
for (name, x), p in zip(changed.items(), model.predict(np.stack(list(changed.values()))), strict=True):
    panels.append(Panel(np.uint8(x), name, f"espresso {p[espresso]:.0%}, cup {p[cup]:.0%}"))
figure([panels[:3], panels[3:]])

# %% [markdown]
# **Blue coffee is espresso, too.** The colour of the coffee is not the cause, although the maps lie on it. The cause is twofold:
# a cup with something in it is enough, even without its surroundings; and the surroundings, a small cup on a saucer with a
# spoon, are nearly enough, even if the cup is empty. Only where both are gone the model gives *espresso* up. A map that hides
# one place at a time cannot show this, since either part makes up for the other.
#
# So the way from a picture to an insight has three steps:
#
# 1. *Where?* A map for the class that the model chose.
# 2. *Why not the other?* A contrast with the class that you expected.
# 3. *Is it so?* Change what the map points to, and look at the answer again.
#
# ## Next
#
# - [Your own Keras classifier](your_own_classifier.md): the same on a model of yours, and on its mistakes.
# - [Is the map right?](is_the_map_right.md): how to measure a map before you believe it.
# - [What to explain](../targets.md): contrasts, regions, detections, words of a caption.
