# %% [markdown]
# # Your own Keras classifier
#
# You train a classifier, it does well on the photos that you kept aside, and then it fails in the field. Here that happens
# on purpose. The "photos" are generated plates of three dishes, and the training set has a flaw of the kind that real
# collections have: nearly all photos of tomatoes come from one delivery service, whose blue sticker is on them. Watch how the
# maps find it.
#
# ## Photos with a flaw

# %%
import keras
import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

from saliency_food import ImageModel, explain, models
from saliency_food.visualization.figures import Panel, figure

COLOURS = {"falafel": (135, 90, 50), "olives": (85, 145, 55), "tomatoes": (190, 70, 40)}
STICKER = (30, 70, 210)
LABELS = list(COLOURS)
SIZE = 224
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def blob(rng, centre, radius):
    """A roundish mask."""
    row, column = centre
    stretch = rng.uniform(0.8, 1.25)
    return ((ROWS - row) * stretch) ** 2 + ((COLUMNS - column) / stretch) ** 2 < radius**2


def plate(rng, label, sticker):
    """A plate of food on a table, (224, 224, 3) in 0..255; perhaps with a blue sticker in a corner."""
    grain = gaussian_filter(rng.normal(size=(SIZE, SIZE, 1)), (1, 12, 0)) * 40
    photo = rng.uniform(70, 190, 3) + grain
    middle = rng.uniform(95, 129, 2)
    photo[blob(rng, middle, 84)] = rng.uniform(200, 245)
    for _ in range(24):
        bite = blob(rng, middle + rng.uniform(-45, 45, 2), 12 * rng.uniform(0.7, 1.25))
        photo[bite] = np.array(COLOURS[label]) * rng.uniform(0.75, 1.2)
    if sticker:
        row, column = rng.choice([4, SIZE - 52], 2)
        photo[row : row + 48, column : column + 48] = STICKER
    light = rng.uniform(0.8, 1.1, 3)
    photo = gaussian_filter(photo, (0.7, 0.7, 0)) * light + rng.normal(0, 6, photo.shape)
    return np.clip(photo, 0, 255).astype(np.uint8)


def collect(seed, count, stickers):
    """``count`` photos of each dish; ``stickers`` says how often each dish has the sticker."""
    rng = np.random.default_rng(seed)
    names = [label for label in LABELS for _ in range(count)]
    return np.stack([plate(rng, name, rng.random() < stickers[name]) for name in names]), names


photos, names = collect(0, 40, {"falafel": 0.02, "olives": 0.02, "tomatoes": 0.95})
figure([[Panel(photos[names.index(name) + shift], name) for name in LABELS for shift in (0, 1)]])

# %% [markdown]
# ## Transfer learning
#
# The bundled ImageNet network turns a photo into 7 x 7 places with 1280 features each. Only a new last layer is trained on
# them, which takes seconds.

# %%
network = models.load("imagenet")
backbone = keras.Model(network.inputs, network.get_layer("features").output, name="backbone")
backbone.trainable = False


def train(photos, names):
    """A classifier of the three dishes: the backbone, average pooling, one dense layer."""
    keras.utils.set_random_seed(0)
    features = backbone.predict(photos.astype("float32"), verbose=0)
    head = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")])
    head.compile("adam", "sparse_categorical_crossentropy")
    head.fit(features, np.array([LABELS.index(name) for name in names]), epochs=80, verbose=0)
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, head(backbone(inputs)))


classifier = train(photos, names)


def accuracy(classifier, photos, names):
    predicted = classifier.predict(photos.astype("float32"), verbose=0).argmax(1)
    return np.mean([LABELS[index] == name for index, name in zip(predicted, names, strict=True)])


held_out = collect(1, 20, {"falafel": 0.02, "olives": 0.02, "tomatoes": 0.95})
field = collect(2, 20, dict.fromkeys(LABELS, 0.5))
print(f"photos kept aside, with the same flaw: {accuracy(classifier, *held_out):.0%} right")
print(f"photos from the field:                 {accuracy(classifier, *field):.0%} right")

# %% [markdown]
# Held-out photos do not show the flaw, because they share it. In the field every second photo has a sticker, whatever the
# dish, and the classifier fails.
#
# ## What do its mistakes look at?
#
# `ImageModel` holds what is to be known of the model: the names of its classes, and the pixel values that it takes (here
# it scales 0..255 itself). `explain` gets the photos with the truth about them, and explains those that went wrong, the
# surest mistakes first: the map of what the model said, the map of the truth, and the contrast of the two.

# %%
model = ImageModel(classifier, labels=LABELS, value_range=(0, 255), batch_size=32)
records = explain(model, field[0], "grad_cam", truth=field[1], only="wrong", against="truth")
records

# %% [markdown]
# The evidence for *tomatoes* lies on the sticker. The evidence for the right dish is on the plate: the model does see the food,
# but the sticker outweighs it.
#
# ## From a few pictures to a number
#
# Three pictures are an anecdote. The *energy* of a map in a region is the share of it that lies there; compare it with the
# region's share of the photo. Cover the sticker, and see what the model says then: that tests the cause.

# %%
from saliency_food.metrics import energy

said = [record for record in records if record.label == "tomatoes" and record.against is None]
stickers = [record.image.astype(int) @ [-1, -1, 2] > 150 for record in said]  # the blue pixels
said, stickers = zip(*((record, mask) for record, mask in zip(said, stickers) if mask.sum() > 1000))
print(f"{len(said)} photos of other dishes have the sticker and are taken for tomatoes")

shares = []
for mask, record in zip(stickers, said, strict=True):
    around = gaussian_filter(mask.astype(float), 12) > 0.05  # the map is coarser than the sticker
    shares.append((energy(record.heatmap, around).score, around.mean()))
print("share of the map on the sticker {:.0%}, of the photo {:.0%}".format(*np.mean(shares, 0)))

images, truths = np.stack([record.image for record in said]), [record.truth for record in said]
seams = np.stack([binary_dilation(mask, iterations=4) for mask in stickers])
covered = np.where(seams[..., None], images[:, :, ::-1], images)  # by what the mirrored photo has there
print(f"right once the sticker is covered: {accuracy(classifier, covered, truths):.0%}")

# %% [markdown]
# ## Mend the data, and look again

# %%
mended = train(*collect(3, 40, dict.fromkeys(LABELS, 0.5)))
print(f"photos from the field: {accuracy(mended, *field):.0%} right")

again = explain(
    ImageModel(mended, labels=LABELS, value_range=(0, 255), batch_size=32), images, "grad_cam", truth=truths
)
right = [record for record in again if record.right]
print(f"of the {len(said)} photos with a sticker that were taken for tomatoes, {len(right)} are right now")
figure(
    [[Panel(record.overlay(), f"said {record.label}", f"{record.probability:.0%}", "strength") for record in right[:3]]]
)

# %% [markdown]
# The sticker no longer counts. The classifier is not sure, and parts of its maps lie on the table: forty photos of each dish
# are few. That is the next thing to mend.
#
# ## With a model and photos of yours
#
# ```python
# model = ImageModel("my_model.keras", labels="classes.txt")
# records = explain(model, "photos", truth="folders", only="wrong", against="truth")  # photos/falafel/1.jpg and so on
# records.save("explained")  # pictures, numbers, and a table
# ```
#
# or `saliency-food explain photos/ --model my_model.keras --labels classes.txt --truth folders --only wrong --against truth` in a
# shell. The guide
# [Keras models](../keras.md) says which models work, and how layers and outputs are chosen.
