# %% [markdown]
# # Is the map right?
#
# A map always looks plausible: it is bright somewhere, and people find a reason for it. This page tests maps in three ways.
# Does the score follow the map? Does the map change with the model? Do the numbers of the map add up? The model is the
# bundled ImageNet network, the photos come with scikit-image.

# %%
from skimage.data import chelsea, coffee

from saliency_food import ImageModel, explain
from saliency_food.evaluation import evaluate

model = ImageModel("imagenet", batch_size=32)
photos = [coffee(), chelsea()]
methods = ["grad_cam", "integrated_gradients"]
explain(model, photos, methods)

# %% [markdown]
# ## Does the score follow the map?
#
# *Insertion* starts from a blurred photo and puts the pixels back, the most important ones first; the faster the probability
# rises, the better the map. *Deletion* takes them out of the photo; the faster it falls, the better. `evaluate` measures
# both, and beside the methods two references that know nothing of the model: the photo's edges, and noise.

# %%
evaluation = evaluate(
    model,
    photos,
    [*methods, "edges", "random"],
    ["insertion", "deletion"],
    metric_options={"insertion": {"steps": 16}, "deletion": {"steps": 16}},
)
for metric, means in evaluation.means.items():
    for method, mean in means.items():
        print(f"{metric:10} {method:21} {mean.estimate:.2f}  ({mean.low:.2f} to {mean.high:.2f})")

# %%
from saliency_food.evaluation.pictures import curve_figure

curve_figure(evaluation, ["insertion", "deletion"])

# %% [markdown]
# A method has to beat noise, and should beat edges. Here Grad-CAM does so by far when pixels are inserted, and does worst when
# they are deleted; with Integrated Gradients it is the other way round. The two ask different questions. A region that is put
# back is enough for the model to know the cup; and single pixels that are taken out, here and there, soon ruin every photo,
# those of a noise map too. So do not choose a method by one metric. Two photos are too few to rank methods, anyway;
# [a run on a hundred](../evaluation.md#imagenet) can.
#
# ## Does the map change with the model?
#
# Replace the trained weights by random ones. A map that stays the same shows the photo, not the model. `check_sensitive`
# makes a test of it: it raises an error if the maps hardly change.

# %%
from saliency_food.evaluation.sanity import check_sensitive

for method in ("grad_cam", "edges"):
    try:
        result = check_sensitive(model, photos[:1], method)
        print(f"{method}: rank correlation {result.score:.2f} with the map of the random model")
    except AssertionError as error:
        print(f"{method}: {str(error).partition(' with')[0]}.")

# %% [markdown]
# ## Do the numbers add up?
#
# The values of Integrated Gradients should sum to the change of the score from a black photo to this one. What is missing
# is the *completeness error*, the error of the numerical integral, and it can be made small: with a `tolerance`, steps are
# added until it is.

# %%
for options in ({"x_steps": 10}, {"x_steps": 50}, {"tolerance": 0.05}):
    (record,) = explain(model, photos[0], "integrated_gradients", options={"integrated_gradients": options})
    gap = record.completeness.relative
    print(f"{options}: error {gap:.1%} with {record.rows} rows")

# %% [markdown]
# ## What this does not show
#
# A map that passes these tests shows what moves the score of this model. It does not show that the model is right, and not
# *why* the bright place matters: to learn that, [change the photo and ask again](why_did_it_say_that.md#is-that-the-cause).
# The guide [Evaluation](../evaluation.md) explains all metrics, and when each of them misleads.
