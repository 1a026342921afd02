# The whole competition: data, folds, training, blending, scoring. `make` lists the targets.
#
# Set variables on the command line: make train MODEL=3dhg FOLD=0 ARGS="--batch 8 --lr 5e-4"
# Most targets run the command of the same name, `python -m competition TARGET`, and append ARGS to its flags.
# Defaults are assigned with = and not ?=, so that a stray variable of the shell changes nothing.

# Which folders
DATA = data/synthetic
FOLDS = folds
SUBMISSIONS = submissions
# What to train: FOLD is a number, all or full; an empty RUN, EPOCHS or GPUS leaves the choice to the command
MODEL = 3dhg-small
FOLD = all
RUN =
EPOCHS =
# Trials of a whole study
TRIALS = 30
GPUS =
SEED = 0
# How many synthetic images to make
N = 6000
N_TEST = 1500
# What to blend, score and submit
METHOD = optuna
FILE = $(SUBMISSIONS)/$(or $(RUN),blend)/submission.csv.gz
COMPETITION =
MESSAGE =
YES =
# Further flags of the command
ARGS =

VENV = .venv
PYTHON = $(VENV)/bin/python
CLI = $(PYTHON) -m competition
COMMON = --data '$(DATA)' --folds '$(FOLDS)' --submissions '$(SUBMISSIONS)' --seed '$(SEED)'

# What `train` needs and makes when it is missing: the synthetic data (never another DATA) and the folds
SYNTHETIC = $(if $(subst data/synthetic,,$(DATA)),,data/synthetic/manifest.json)
FOLDS_CSV = $(subst :,\:,$(subst $(SPACE),\ ,$(FOLDS)))/folds.csv

# .guards.mk rejects unknown and unused variables, and characters that would break the quotes in the recipes below; its
# SETUP is the recipe of `setup`
override VARIABLES = MODEL FOLD RUN EPOCHS TRIALS GPUS SEED DATA FOLDS SUBMISSIONS N N_TEST METHOD FILE COMPETITION MESSAGE YES ARGS
MAKEFILE := $(lastword $(MAKEFILE_LIST))
include $(dir $(MAKEFILE)).guards.mk

# with it, `python -m competition` wouldn't find the package in this folder
unexport PYTHONSAFEPATH

# `make -j4 train blend` trains first: each target already uses all cores
.NOTPARALLEL:
.DEFAULT_GOAL = help
.PHONY: help setup demo test check-code bench data check folds train tune predict blend score board report submit verify reproduce clean
.SUFFIXES:

help: ## List the targets and the variables.
	@echo "usage: make TARGET [VARIABLE=value ...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE)
	@echo "variables: $(VARIABLES)"
	@echo "defaults: $(foreach name,MODEL FOLD N N_TEST METHOD DATA,$(name)=$($(name))) (tune, reproduce: FOLD=0)"
	@echo "DATA, FOLDS and SUBMISSIONS are folders; they and SEED apply to every target from data to reproduce that needs them"
	@echo "start with: make demo"

setup: ## Create .venv and install requirements.txt.
	@sh -c "$$SETUP"

DEMO = data/demo
DEMO_COMMON = --data $(DEMO)/competition --folds $(DEMO)/folds --submissions $(DEMO)/submissions --seed '$(SEED)'

demo: setup ## Run the whole competition with three small models under data/demo (SEED).
	$(CLI) data $(DEMO_COMMON) --n 1500 --n-test 600
	$(CLI) folds $(DEMO_COMMON) --strategy subject --k 2
	for model in 2dhg-small 3dhg-small integral-small; do $(CLI) train $(DEMO_COMMON) --model $$model || exit; done
	$(CLI) blend $(DEMO_COMMON) --method optuna --out $(DEMO)/submissions/blend
	$(CLI) blend $(DEMO_COMMON) --method mean --out $(DEMO)/submissions/blend-mean
	$(CLI) blend $(DEMO_COMMON) --method exact --out $(DEMO)/submissions/blend-exact
	$(CLI) score $(DEMO_COMMON) --file $(DEMO)/submissions/*/submission.csv.gz
	$(CLI) board $(DEMO_COMMON)
	@echo "the blend to upload: $(DEMO)/submissions/blend/submission.csv.gz"
	@echo "next: make train MODEL=3dhg-small, then make blend"

test: setup ## Run the tests (ARGS).
	$(PYTHON) -m pytest $(ARGS)

check-code: setup ## Run the linter, the formatter's check and the type checker.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup ## Benchmark this implementation against baselines (ARGS="--only loader,csv").
	$(CLI) bench $(ARGS)

data: setup ## Make a synthetic competition in DATA (N, N_TEST, SEED, ARGS).
	$(CLI) data --data '$(DATA)' --seed '$(SEED)' --n '$(N)' --n-test '$(N_TEST)' $(ARGS)

check: setup | $(SYNTHETIC) ## Validate the competition's folder (DATA, FOLDS, ARGS).
	$(CLI) check $(COMMON) $(ARGS)

folds: setup | $(SYNTHETIC) ## Assign the training images to folds (ARGS="--strategy sequence --k 5").
	$(CLI) folds $(COMMON) $(ARGS)

train: setup | $(SYNTHETIC) $(FOLDS_CSV) ## Train a model (MODEL, FOLD, RUN, EPOCHS, GPUS, ARGS="--lr 1e-3").
	$(CLI) train $(COMMON) --model '$(MODEL)' --fold '$(FOLD)' $(if $(RUN),--run '$(RUN)') \
	  $(if $(EPOCHS),--epochs '$(EPOCHS)') $(if $(GPUS),--gpus '$(GPUS)') $(ARGS)

# FOLD only when it is set: `tune` uses fold 0 by default
tune: setup | $(SYNTHETIC) $(FOLDS_CSV) ## Search the settings of a model with optuna (MODEL, TRIALS, FOLD, EPOCHS, ARGS="--search lr,ema").
	$(CLI) tune $(COMMON) --model '$(MODEL)' --trials '$(TRIALS)' $(if $(filter command,$(origin FOLD)),--fold '$(FOLD)') \
	  $(if $(EPOCHS),--epochs '$(EPOCHS)') $(ARGS)

predict: setup ## Predict with the weights of RUN: the data set again, or an image (ARGS="--image photo.jpg").
	$(call require,RUN,make board lists the runs)
	$(CLI) predict $(COMMON) --run '$(RUN)' $(ARGS)

blend: setup ## Blend the runs into one submission (METHOD, ARGS).
	$(CLI) blend $(COMMON) --method '$(METHOD)' $(ARGS)

score: setup ## Score the blend, RUN or FILE against the hidden answers of the synthetic competition (ARGS).
	$(CLI) score $(COMMON) --file '$(FILE)' $(ARGS)

board: setup ## List runs and blends with their scores (ARGS="--sort private").
	$(CLI) board $(COMMON) $(ARGS)

report: setup ## Write an HTML report on runs and blends to SUBMISSIONS/report.html (ARGS).
	$(CLI) report $(COMMON) $(ARGS)

submit: setup ## Upload the blend, RUN or FILE and wait for its score (COMPETITION, MESSAGE, YES=1, ARGS).
	$(call require,COMPETITION,the last part of the competition's address)
	$(CLI) submit $(COMMON) --file '$(FILE)' --competition="$$SUBMIT_COMPETITION" --message="$$SUBMIT_MESSAGE" \
	  $(if $(YES),--yes) $(ARGS)

verify: setup ## Recompute the hashes and scores of RUN, which may be a blend (ARGS).
	$(call require,RUN,a folder of SUBMISSIONS)
	$(CLI) verify $(COMMON) '$(SUBMISSIONS)/$(RUN)' $(ARGS)

# FOLD only when it is set: `reproduce` trains fold 0 by default, and `train` all folds
reproduce: setup | $(SYNTHETIC) $(FOLDS_CSV) ## Train and blend the poster's models (FOLD, ARGS="--scale small").
	$(CLI) reproduce $(COMMON) $(if $(filter command,$(origin FOLD)),--fold '$(FOLD)') $(ARGS)

clean: ## Delete .venv and caches; keep data, folds and submissions.
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

data/synthetic/manifest.json: | setup
	$(CLI) data --data data/synthetic --seed '$(SEED)' --n '$(N)' --n-test '$(N_TEST)'

$(FOLDS_CSV): | setup $(SYNTHETIC)
	$(CLI) folds $(COMMON)
