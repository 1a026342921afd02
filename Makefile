# The whole competition: data, folds, training, blending, scoring. `make` lists the targets.

# Knobs, set on the command line: make train MODEL=3dhg FOLD=0 ARGS="--batch 8 --lr 5e-4"
# (=, not ?=, so that a stray variable of the shell changes nothing)
MODEL = 3dhg-small
FOLD = all
RUN =
EPOCHS =
GPUS =
SEED = 0
DATA = data/synthetic
FOLDS = folds
SUBMISSIONS = submissions
N = 6000
N_TEST = 1500
METHOD = optuna
COMPETITION =
MESSAGE =
YES =
FILE = $(SUBMISSIONS)/$(or $(RUN),blend)/submission.csv.gz
ARGS =

VENV = .venv
PYTHON = $(VENV)/bin/python
WHERE = --data '$(DATA)' --folds '$(FOLDS)' --submissions '$(SUBMISSIONS)' --seed '$(SEED)'
COMPETITION_CLI = $(PYTHON) -m competition
option = $(if $(2),$(1) '$(2)')

# A quote or a line end would end the shell's quoting below, and make itself expands a $. ARGS is given to the shell as it
# is: its words are flags.
KNOBS = MODEL FOLD RUN EPOCHS GPUS SEED DATA FOLDS SUBMISSIONS N N_TEST METHOD FILE YES
define LINE_END


endef
expanded = $(if $(filter command environment,$(origin $(1))),$(value $(1)))
strange = $(findstring ',$(value $(1)))$(findstring $(LINE_END),$(value $(1)))$(findstring $$,$(expanded))
$(foreach knob,$(KNOBS),$(if $(call strange,$(knob)),$(error $(knob)=: expected no quote, $$ or line end in it)))
$(if $(filter /%,$(value RUN))$(findstring /..,/$(value RUN)),$(error RUN=$(RUN): expected the name of a run))
unexport $(KNOBS) COMPETITION MESSAGE

# make would take a knob that doesn't exist, such as MODLE=3dhg, without a word
KNOWN = $(KNOBS) COMPETITION MESSAGE ARGS $(MAKES_OWN)
MAKES_OWN = VENV PYTHON SHELL MAKE MAKEFLAGS V
NEAREST = import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1))
nearest = $(if $(findstring ',$(1)),,$(shell python3 -c '$(NEAREST)' '$(1)' $(KNOWN) 2>/dev/null))
on_command_line = $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
refuse = $(error $(1)=: unknown knob:$(if $(2), did you mean $(2)=?) known are $(filter-out $(MAKES_OWN),$(KNOWN)))
$(foreach name,$(filter-out $(KNOWN),$(on_command_line)),$(call refuse,$(name),$(call nearest,$(name))))
need = $(if $(value $(1)),,$(error $(1)= is missing: $(2)))

# What train needs and makes by itself when it is missing.
HAVE_DATA = $(if $(filter data/synthetic,$(DATA)),data/synthetic/manifest.json)
HAVE_FOLDS = $(FOLDS)/folds.csv

.DEFAULT_GOAL = help
.PHONY: help setup demo test check-code bench data check folds train predict blend score board report submit verify reproduce clean
.SUFFIXES:

help: ## list the targets
	@echo "make TARGET [KNOB=value ...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "knobs: MODEL FOLD RUN EPOCHS GPUS SEED DATA FOLDS SUBMISSIONS N N_TEST METHOD FILE COMPETITION MESSAGE YES ARGS (see the Makefile's head)"
	@echo "begin with: make demo"

setup: $(VENV)/.installed ## make .venv and install requirements.txt

$(VENV)/.installed: requirements.txt
	@rm -f $@
	if command -v uv >/dev/null; then \
	  test -x $(PYTHON) || uv venv --python 3.11 $(VENV); uv pip install --compile-bytecode --python $(PYTHON) -r requirements.txt; \
	else \
	  test -x $(PYTHON) || python3 -m venv $(VENV); $(PYTHON) -m pip install -r requirements.txt; \
	fi
	@touch $@

demo: setup ## the whole competition in minutes: three small models, two folds, blends, scores
	$(COMPETITION_CLI) data $(DEMO) --n 1500 --n-test 600
	$(COMPETITION_CLI) folds $(DEMO) --strategy subject --k 2
	for model in 2dhg-small 3dhg-small integral-small; do $(COMPETITION_CLI) train $(DEMO) --model $$model --parallel 2 || exit; done
	$(COMPETITION_CLI) blend $(DEMO) --method optuna --out $(DEMO_ROOT)/submissions/blend
	$(COMPETITION_CLI) blend $(DEMO) --method mean --out $(DEMO_ROOT)/submissions/blend-mean
	$(COMPETITION_CLI) blend $(DEMO) --method exact --out $(DEMO_ROOT)/submissions/blend-exact
	$(COMPETITION_CLI) score $(DEMO) --file $(DEMO_ROOT)/submissions/*/submission.csv.gz
	$(COMPETITION_CLI) board $(DEMO)
	@echo "the blend to upload: $(DEMO_ROOT)/submissions/blend/submission.csv.gz"
	@echo "next, at your own pace: make train MODEL=3dhg-small, then make blend"

DEMO_ROOT = data/demo
DEMO = --data $(DEMO_ROOT)/competition --folds $(DEMO_ROOT)/folds --submissions $(DEMO_ROOT)/submissions --seed '$(SEED)'

test: setup ## run the tests
	$(PYTHON) -m pytest $(ARGS)

check-code: setup ## lint and type checks
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

data: setup ## make the embedded competition: N N_TEST SEED
	$(COMPETITION_CLI) data --data '$(DATA)' --seed '$(SEED)' --n '$(N)' --n-test '$(N_TEST)' $(ARGS)

check: setup | $(HAVE_DATA) ## look the competition's folder through: DATA
	$(COMPETITION_CLI) check $(WHERE) $(ARGS)

folds: setup | $(HAVE_DATA) ## decide which images are held out together: ARGS="--strategy sequence --k 5"
	$(COMPETITION_CLI) folds $(WHERE) $(ARGS)

train: setup | $(HAVE_DATA) $(HAVE_FOLDS) ## train a model: MODEL FOLD RUN EPOCHS GPUS, settings by ARGS="--lr 1e-3"
	$(COMPETITION_CLI) train $(WHERE) --model '$(MODEL)' --fold '$(FOLD)' $(call option,--run,$(RUN)) $(call option,--epochs,$(EPOCHS)) $(call option,--gpus,$(GPUS)) $(ARGS)

predict: setup ## predict again with a run's weights: RUN, ARGS="--decoder argmax"
	$(call need,RUN,make board lists the runs)$(COMPETITION_CLI) predict $(WHERE) --run '$(RUN)' $(ARGS)

blend: setup ## blend the runs into one submission: METHOD
	$(COMPETITION_CLI) blend $(WHERE) --method '$(METHOD)' $(ARGS)

bench: setup ## measure our ways against plain ones: ARGS="--only loader,csv"
	$(COMPETITION_CLI) bench $(ARGS)

score: setup ## score a CSV against the embedded competition's hidden answers: FILE, or RUN
	$(COMPETITION_CLI) score $(WHERE) --file '$(FILE)' $(ARGS)

board: setup ## list runs and blends with their scores
	$(COMPETITION_CLI) board $(WHERE) $(ARGS)

report: setup ## write a page of pictures: submissions/report.html
	$(COMPETITION_CLI) report $(WHERE) $(ARGS)

# COMPETITION and MESSAGE go through the environment: a quote in them must not end the shell's
submit: export SUBMIT_COMPETITION := $(value COMPETITION)
submit: export SUBMIT_MESSAGE := $(value MESSAGE)
submit: setup ## send a CSV to the competition and read its score: FILE or RUN, COMPETITION MESSAGE YES=1
	$(call need,COMPETITION,the last part of the competition's address)$(COMPETITION_CLI) submit $(WHERE) --file '$(FILE)' --competition="$$SUBMIT_COMPETITION" --message="$$SUBMIT_MESSAGE" $(if $(YES),--yes) $(ARGS)

verify: setup ## recompute what a run's or a blend's folder claims: RUN
	$(call need,RUN,a folder of SUBMISSIONS)$(COMPETITION_CLI) verify $(WHERE) '$(SUBMISSIONS)/$(RUN)' $(ARGS)

reproduce: setup | $(HAVE_DATA) $(HAVE_FOLDS) ## train and blend the poster's table: ARGS="--scale small"
	$(COMPETITION_CLI) reproduce $(WHERE) $(if $(filter command,$(origin FOLD)),--fold '$(FOLD)') $(ARGS)

clean: ## remove .venv and caches; data, folds and submissions stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

data/synthetic/manifest.json: | setup
	$(COMPETITION_CLI) data --data data/synthetic --seed '$(SEED)' --n '$(N)' --n-test '$(N_TEST)'

$(HAVE_FOLDS): | setup $(HAVE_DATA)
	$(COMPETITION_CLI) folds $(WHERE)
