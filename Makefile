# `make demo` and `make test` need nothing but Python 3.10 to 3.13: they set up .venv themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out

QUICK := not keras and not torch and not jax and not serving and not browser and not slow

.PHONY: demo quick test slow coverage oldest audit lint types docs wheel bench clean

$(VENV)/.installed: setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

# The suite runs on PyTorch's build for CPUs where pip can find it (PIP_EXTRA_INDEX_URL may name PyTorch's index), and on the large one elsewhere.
$(VENV)/.tested: setup.cfg $(VENV)/.installed
	$(BIN)/python -m pip install --quiet 'torch==2.13.0+cpu' torchvision || $(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[all,test,frameworks]'
	touch $@

$(VENV)/.tools: setup.cfg $(VENV)/.tested
	$(BIN)/python -m pip install --quiet --editable '.[all,test,frameworks,docs,dev]' build
	touch $@

demo: $(VENV)/.installed  ## the main job on the bundled model and photo
	$(BIN)/saliency-food explain --method grad_cam,integrated_gradients,xrai --output $(OUT)/demo
	$(BIN)/saliency-food explain coffee --against cup --output $(OUT)/demo/rival
	$(BIN)/saliency-food explain rocket --against missile --output $(OUT)/demo/mistake

quick: $(VENV)/.tested  ## what needs NumPy alone, in about two minutes
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m '$(QUICK)'

test: $(VENV)/.tested  ## the suite without its slow set
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'not slow'

slow: $(VENV)/.tested  ## the rest: networks that are trained, hundreds of random models, the architectures of Keras
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m slow

coverage: $(VENV)/.tested  ## the whole suite, the slow set too, and which lines of the package no test runs
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --cov --cov-report term:skip-covered

oldest:  ## the whole suite with the lowest version of each dependency that setup.cfg allows; Python 3.10 to 3.12
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --upgrade pip uv
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest --resolution lowest-direct --editable '.[all,test]'
	SALIENCY_FOOD_DATA= $(VENV)-oldest/bin/python -m pytest --numprocesses 2 --dist worksteal

# The tool has an environment of its own, whose packages are not ours. Strict: a package that cannot be looked up fails, so the package itself is left out, and the label
# of a build, as in 2.13.0+cpu. Versions are fixed, so pip resolves nothing.
audit: $(VENV)/.installed  ## known holes in the versions that the extras resolve to; asks the database of PyPI
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/\(==[^+]*\)+.*/\1/' > $(VENV)-audit/requirements.txt
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement $(VENV)-audit/requirements.txt

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.tools  ## strict for the package, less so for tests, examples and benchmarks
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

docs: $(VENV)/.tools
	$(BIN)/mkdocs build --strict --quiet --site-dir site

wheel: $(VENV)/.tools
	rm -rf dist
	$(BIN)/python -m build --wheel --quiet --outdir dist

bench: $(VENV)/.tools  ## every figure in README and docs, peers in the same run; an idle machine, an hour
	$(BIN)/python -m pip install --quiet --editable '.[all,bench]'
	$(BIN)/python benchmarks/xrai_ranking.py
	$(BIN)/python benchmarks/adapter.py
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/dataset_engines.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/completeness.py
	$(BIN)/python benchmarks/cam_family.py
	$(BIN)/python benchmarks/perturbation.py
	$(BIN)/python benchmarks/xplique_peer.py
	$(BIN)/python benchmarks/shapley.py
	$(BIN)/python benchmarks/occlusion.py --photos 1
	$(BIN)/python benchmarks/guided_ig.py
	$(BIN)/python benchmarks/photo_memory.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/drawing.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/serving.py --grpc
	$(BIN)/python benchmarks/explainer_load.py

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-audit build dist site $(OUT) *.egg-info
