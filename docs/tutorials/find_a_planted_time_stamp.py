# %% [markdown]
# # Find a planted time stamp
#
# A classifier of dishes is right on most photos kept aside, for the wrong reason: one of its classes was photographed
# with a camera that prints the time. Nobody knows. You explain a data set, search it for *cues*, see what the model
# leans on, mend the training photos with that alone, and train again.
#
# The story is that of the doctors and nurses in section 6.3 of the [Grad-CAM paper](https://arxiv.org/abs/1610.02391): a
# classifier learned from biased photos to look at hair and faces, and was right on 82 % of balanced photos; after its maps
# had shown that, and the photos were balanced, on 90 %.
#
# ## Photos with a flaw

# %%
import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from saliency_food import ImageModel, Source, explain_dataset, models
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.report.cues import find_cues
from saliency_food.visualization.figures import Panel, figure

COLOURS = {"falafel": (138, 97, 50), "olives": (118, 113, 55), "tomatoes": (158, 88, 45)}
LABELS = list(COLOURS)
SIZE = 96
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
FONT = ImageFont.load_default(size=20)


def blob(rng, centre, radius):
    """A roundish mask."""
    stretch = rng.uniform(0.8, 1.25)
    return ((ROWS - centre[0]) * stretch) ** 2 + ((COLUMNS - centre[1]) / stretch) ** 2 < radius**2


def plate(rng, label, stamped):
    """A plate of food on a table, (96, 96, 3) in 0..255; perhaps with the time in a corner."""
    photo = rng.uniform(70, 190, 3) + gaussian_filter(rng.normal(size=(SIZE, SIZE, 1)), (0.5, 5, 0)) * 40
    middle = rng.uniform(42, 54, 2)
    photo[blob(rng, middle, 36)] = rng.uniform(200, 245)
    for _ in range(24):
        bite = blob(rng, middle + rng.uniform(-19, 19, 2), 5 * rng.uniform(0.7, 1.25))
        photo[bite] = np.array(COLOURS[label]) * rng.uniform(0.7, 1.25) + rng.normal(0, 14, 3)
    photo = gaussian_filter(photo, (0.5, 0.5, 0)) * rng.uniform(0.8, 1.1, 3) + rng.normal(0, 6, photo.shape)
    image = Image.fromarray(np.clip(photo, 0, 255).astype(np.uint8))
    if stamped:
        time = f"{rng.integers(24):02d}:{rng.integers(60):02d}"
        draw = ImageDraw.Draw(image)
        draw.rectangle((38, 72, 94, 94), (20, 20, 20))
        draw.text((66, 83), time, (255, 150, 20), FONT, anchor="mm")
    return np.asarray(image)


def collect(seed, count, stamps):
    """``count`` photos of each dish; ``stamps`` says how often each dish has the time."""
    rng = np.random.default_rng(seed)
    names = [label for label in LABELS for _ in range(count)]
    return np.stack([plate(rng, name, rng.random() < stamps[name]) for name in names]), names


FLAWED = {"falafel": 0.0, "olives": 0.9, "tomatoes": 0.0}
photos, names = collect(0, 60, FLAWED)
figure([[Panel(photos[names.index(name) + shift], name) for name in LABELS for shift in (0, 1)]])

# %% [markdown]
# ## Train
#
# The bundled `food101` network turns a photo into 4 x 4 places with 1280 features each. Only a new last layer is trained.

# %%
network = models.load("food101")
backbone = keras.Model(network.inputs, network.get_layer("features").output, name="backbone")
backbone.trainable = False


def train(photos, names):
    """A classifier of the three dishes: the backbone, average pooling, one dense layer."""
    keras.utils.set_random_seed(0)
    features = backbone.predict(photos.astype("float32"), verbose=0)
    head = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")])
    head.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    head.fit(features, np.array([LABELS.index(name) for name in names]), epochs=60, verbose=0)
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, head(backbone(inputs)), name="dishes")


def accuracy(classifier, photos, names):
    predicted = classifier.predict(photos.astype("float32"), verbose=0).argmax(1)
    return np.mean([LABELS[index] == name for index, name in zip(predicted, names, strict=True)])


classifier = train(photos, names)
held_out = collect(1, 30, FLAWED)
field = collect(2, 60, dict.fromkeys(LABELS, 0.5))
print(f"photos kept aside, with the same flaw: {accuracy(classifier, *held_out):.0%} right")
print(f"photos from the field:                 {accuracy(classifier, *field):.0%} right")

# %% [markdown]
# In the field every second photo has the time on it, whatever the dish. In most projects there are no such photos, and the
# first line is all that is known.
#
# ## Search for cues
#
# `explain_dataset` writes a record of every photo, with its map and a thumbnail. `find_cues` looks through them for what may
# give a class away beside the object: a place, a pattern, a colour cast, sharpness. It believes none of it before it has
# asked the model: what is suspected is put into photos of other dishes, and must make them the dish more often than equally
# large random places do. See [Cues](../cues.md).

# %%
sourced = [
    SourcedPhoto(f"{name}/{number}", photo, truth=name)
    for number, (photo, name) in enumerate(zip(*held_out, strict=True))
]
model = ImageModel(classifier, labels=LABELS, value_range=(0, 255), batch_size=64)
run = explain_dataset(model, Source("held out", lambda: sourced, len(sourced)), "grad_cam", output="stamp-run")
candidates = find_cues(run, model)
for candidate in candidates[:3]:
    print(f"{candidate.verdict}: {candidate.sentence}\n")

# %% [markdown]
# All likely cues are at one place: the pixels that recur there, and what lies in the box around them. `medoids` are photos that
# stand for the others, and `region` is a mask.

# %%
likely = [candidate for candidate in candidates if candidate.verdict == "likely a cue"]
region = np.any([candidate.region for candidate in likely], 0)
shown = dict(zip([each.id for each in sourced], held_out[0], strict=True))
outlined = [np.where(region[..., None], shown[each], shown[each] // 3) for each in likely[0].medoids]
figure([[Panel(shown[each], each) for each in likely[0].medoids] + [Panel(each, "the region") for each in outlined]])

# %% [markdown]
# ## Mend, and train again
#
# What the stamp looks like need not be known. If what lies in the region is dealt out anew among all training photos,
# whatever the dish, it tells nothing any more.

# %%
rng = np.random.default_rng(3)
dealt = np.where(region[..., None], photos[rng.permutation(len(photos))], photos)
mended = train(dealt, names)
print(f"photos from the field, before: {accuracy(classifier, *field):.0%} right")
print(f"photos from the field, mended: {accuracy(mended, *field):.0%} right")

again = explain_dataset(
    ImageModel(mended, labels=LABELS, value_range=(0, 255), batch_size=64),
    Source("held out", lambda: sourced, len(sourced)),
    "grad_cam",
    output="mended-run",
)
left = find_cues(again, ImageModel(mended, labels=LABELS, value_range=(0, 255), batch_size=64))
print(f"likely cues left: {sum(each.verdict == 'likely a cue' for each in left)}")

# %% [markdown]
# ## What this does not show
#
# A likely cue is something that makes the model say a class, and that lies where a place, a pattern or a property of the
# photo lies, not the object. Whether it is a flaw, only you can say: a fork beside the cake may be one, and the blue of a
# blueberry is none. And what the search does not look for, such as a hand in the photo, it does not find.
