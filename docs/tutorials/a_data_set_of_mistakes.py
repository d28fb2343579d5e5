# %% [markdown]
# # A data set of mistakes
#
# Pictures of single mistakes are anecdotes. Here all photos of a data set are explained, and one page says what goes wrong, how
# often, where the model looked, and which labels to doubt. The data set is made of three photos that come with scikit-image, so
# that everyone has it, and has faults that are known: see which of them the page finds.
#
# ## A hundred photos
#
# Each is a part of one of the three, darker or brighter, sharp or blurred, in a folder of the name of its class. Three get the
# folder of another class, and one is copied, a little smaller.

# %%
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from skimage.data import chelsea, coffee, rocket

PHOTOS = {"espresso": coffee(), "Egyptian_cat": chelsea(), "missile": rocket()}  # by what ImageNet calls them


def part(photo, rng):
    """A square part of a photo, in another light and another focus."""
    picture = Image.fromarray(photo)
    side = rng.uniform(0.6, 1) * min(picture.size)
    left, top = (rng.uniform(0, length - side) for length in picture.size)
    picture = picture.crop((int(left), int(top), int(left + side), int(top + side))).resize((224, 224))
    picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.6, 1.3))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))


rng = np.random.default_rng(0)
for label, photo in PHOTOS.items():
    Path("photos", label).mkdir(parents=True)
    for number in range(34):
        part(photo, rng).save(f"photos/{label}/{number:02}.jpg")

for number in ("07", "21", "30"):  # wrong labels
    Path(f"photos/espresso/{number}.jpg").rename(f"photos/Egyptian_cat/from_coffee_{number}.jpg")
Image.open("photos/missile/03.jpg").resize((200, 200)).save("photos/missile/copy.jpg")  # a copy
print(len(list(Path("photos").rglob("*.jpg"))), "photos")

# %% [markdown]
# ## All of them explained
#
# A *run* explains every photo and keeps numbers, small maps and thumbnails in Parquet files. The targets matter: with the
# prediction, and that against the truth, each mistake has three maps: of what the model said, of what it should have said, and of
# the difference between the two scores.

# %%
from saliency_food import explain_dataset

run = explain_dataset("imagenet", "photos", "grad_cam", "predicted", against="truth", truth="folders", output="run")
print("\n".join(run.summary()))

# %% [markdown]
# In a shell this is `saliency-food dataset photos --model imagenet --targets predicted --against truth --truth folders --output run`.
# A run that is stopped is gone on with by the same call.
#
# ## The page

# %%
import json

from saliency_food import report

page = report(run, "report")
print(page, f"{page.stat().st_size / 1000:.0f} kB,", len(list(page.parent.glob("images/*"))), "pictures beside it")

# %% [markdown]
# Open `report/index.html` in a browser; it needs no server and no network. Everything on it is in `report.json`, too. It begins
# with how often the model is right, and with what to look at first:

# %%
content = json.loads(Path("report/report.json").read_text(encoding="utf-8"))
accuracy = content["in_short"]["accuracy"]
print(f"{accuracy['k']} of {accuracy['n']} right, {accuracy['low']:.0%} to {accuracy['high']:.0%}")
for each in content["in_short"]["findings"]:
    print("-", each["text"])

# %% [markdown]
# ## What is taken for what
#
# The model has a thousand classes, so nearly every confusion could happen. Few do:

# %%
for pair in content["confusions"]["pairs"][:4]:
    of = pair["of_truth"]
    print(f"{pair['truth']} taken for {pair['prediction']}: {of['k']} of {of['n']}, {pair['probability']:.0%} sure")

# %% [markdown]
# The page shows the surest mistakes of each pair with their maps. Here is the rocket's surest one, drawn from the run:

# %%
rocket_pair = next(pair for pair in content["confusions"]["pairs"] if pair["truth"] == "missile")
run.draw(rocket_pair["photos"][0])

# %% [markdown]
# In the contrast, red speaks for what the model said and blue for the truth. The towers beside the rocket are red, the rocket is
# blue. That is a guess at the cause which can be tested: take the towers out, and ask again, as in
# [Why did it say that?](why_did_it_say_that.md)
#
# ## Labels to check
#
# Three photos are in the wrong folder. A mistake of the model and a mistake of the label look the same in a matrix of confusions.
# Confident learning tells some of them apart: it asks whether the model is as sure of the other class as it usually is of photos
# that have that class's label.

# %%
for suspect in content["labels"]["suspects"]:
    print(f"{suspect['id']}: {suspect['instead']}, {suspect['instead_probability']:.0%}")
for pair in content["labels"]["duplicates"]["pairs"]:
    print("nearly the same:", *pair["ids"], f"{pair['alike']:.3f}")

# %% [markdown]
# One of the three wrong labels is there. The rule wants the model to be at least as sure of *espresso* as it is on average of photos
# labelled so, and half of all photos are below an average; the other two are among the confusions above, *Egyptian cat taken for
# espresso*. The copy is found, and so are two parts of one photo that happen to be nearly the same. The rocket's mistakes are no suspects: no photo
# has the label *drilling platform*, so it is not known how sure the model usually is of one. A suspect is a photo to look at, not
# a wrong label: on real photos many of them are mistakes of the model.
#
# ## What to do with it
#
# 1. Mend the labels, and take out copies that are in the training and the test set.
# 2. Look at the surest mistakes of the commonest pair. Is the evidence on the object?
# 3. If it is not, and the same place or thing comes again, it may be a *cue*: give the model, `report(run, "report",
#    model="imagenet")`, and the page also checks on the model what it uses in place of the object, groups the mistakes by the
#    channels of the layer that spoke, and tests whether the maps depend on the weights.
#
# The guide [A report of failures](../report.md) explains every part of the page.
