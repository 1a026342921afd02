# Checks on the variables of the Makefile, which includes this file. Each failed check ends make with one line.

# Without the check on characters, a quote or a newline would end the quotes that the recipes put around a variable, and
# make would expand a $. These three variables may hold any character: the shell splits ARGS into flags, and the other two
# reach the recipe of `submit` through the environment.
UNCHECKED = ARGS COMPETITION MESSAGE
CHECKED = $(filter-out $(UNCHECKED),$(VARIABLES))
submit: export SUBMIT_COMPETITION := $(value COMPETITION)
submit: export SUBMIT_MESSAGE := $(value MESSAGE)
unexport $(CHECKED) COMPETITION MESSAGE

define NEWLINE


endef
EMPTY =
SPACE = $(EMPTY) $(EMPTY)
# only a value that the user gave is searched for a $: the defaults in the Makefile refer to other variables
given = $(if $(filter command environment,$(origin $(1))),$(value $(1)))
forbidden = $(findstring ',$(value $(1)))$(findstring $(NEWLINE),$(value $(1)))$(findstring $$,$(given))
$(foreach name,$(CHECKED),$(if $(call forbidden,$(name)),$(error $(name)=: expected no quote, $$ or newline in it)))

# a folder that is empty would be the current one; make would split a rule at the ; and expand the patterns
$(foreach name,DATA FOLDS SUBMISSIONS,$(if $(strip $(value $(name))),,$(error $(name)=: expected a folder)))
$(foreach mark,; * ? [,$(if $(findstring $(mark),$(value FOLDS)),$(error FOLDS=$(FOLDS): expected no $(mark) in it)))

# RUN must not point outside SUBMISSIONS
$(if $(filter /%,$(value RUN))$(findstring /..,/$(value RUN)),$(error RUN=$(RUN): expected the name of a run))

# make silently accepts a variable that no recipe uses, such as MODLE=3dhg: reject it and suggest the nearest name
BUILT_IN = VENV PYTHON SHELL MAKE MAKEFLAGS V
KNOWN = $(VARIABLES) $(BUILT_IN)
NEAREST = import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1))
nearest = $(if $(findstring ',$(1)),,$(shell python3 -c '$(NEAREST)' '$(1)' $(KNOWN) 2>/dev/null))
reject = $(error $(1)=: unknown variable:$(if $(2), did you mean $(2)=?) expected one of $(VARIABLES))
on_command_line = $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
$(foreach name,$(filter-out $(KNOWN),$(on_command_line)),$(call reject,$(name),$(call nearest,$(name))))

# The same for a variable that none of the goals uses, as in `make blend RUN=x`; a goal that is a file accepts all
COMMON_VARIABLES = DATA FOLDS SUBMISSIONS SEED ARGS
# of the synthetic data that a target makes when they are missing
DATA_VARIABLES = $(if $(SYNTHETIC),N N_TEST)
uses.help =
uses.setup =
uses.demo = SEED
uses.test = ARGS
uses.check-code =
uses.bench = ARGS
uses.data = N N_TEST DATA SEED ARGS
uses.check = $(COMMON_VARIABLES) $(DATA_VARIABLES)
uses.folds = $(COMMON_VARIABLES) $(DATA_VARIABLES)
uses.train = MODEL FOLD RUN EPOCHS GPUS $(COMMON_VARIABLES) $(DATA_VARIABLES)
uses.tune = MODEL FOLD EPOCHS TRIALS $(COMMON_VARIABLES) $(DATA_VARIABLES)
uses.predict = RUN $(COMMON_VARIABLES)
uses.blend = METHOD $(COMMON_VARIABLES)
uses.score = RUN FILE $(COMMON_VARIABLES)
uses.board = $(COMMON_VARIABLES)
uses.report = $(COMMON_VARIABLES)
uses.submit = RUN FILE COMPETITION MESSAGE YES $(COMMON_VARIABLES)
uses.verify = RUN $(COMMON_VARIABLES)
uses.reproduce = FOLD $(COMMON_VARIABLES) $(DATA_VARIABLES)
uses.clean =

GOALS = $(or $(MAKECMDGOALS),help)
used_by = $(if $(filter undefined,$(origin uses.$(1))),$(VARIABLES),$(uses.$(1)))
ALLOWED = $(foreach goal,$(GOALS),$(call used_by,$(goal)))
USED = $(filter-out $(COMMON_VARIABLES),$(filter $(ALLOWED),$(VARIABLES))) $(filter $(ALLOWED),$(COMMON_VARIABLES))
GOALS_USE = $(if $(word 2,$(GOALS)),they use,$(GOALS) uses) $(or $(strip $(USED)),no variables)
$(foreach name,$(filter-out $(ALLOWED) $(BUILT_IN),$(on_command_line)),$(error $(name)=: not used by $(GOALS): $(GOALS_USE)))

# FILE would replace the file of RUN
FILE_OF = $(if $(filter score submit,$(GOALS)),$(filter RUN FILE,$(on_command_line)))
$(if $(word 2,$(FILE_OF)),$(error RUN= and FILE=: expected only one of them))

# $(call require,NAME,hint) in a recipe: end with the hint when the variable is not set
require = $(if $(value $(1)),,$(error $(1)= is missing: $(2)))

# The recipe of `setup`. It replaces a .venv without a working Python of one of these versions (or without pip, where uv
# is missing), which an interrupted installation or an upgrade of the system leaves behind, and completes any other.
PYTHONS = 3.11 3.12 3.13
define SETUP
fail() { echo "error: $$*" >&2; exit 2; }
version() { "$$1" --version 2>&1 | sed -n 's/^Python \([0-9]*\.[0-9]*\).*/\1/p'; }
supported() { case ' $(PYTHONS) ' in *" $$(version "$$1") "*) ;; *) false ;; esac; }
works() { supported '$(PYTHON)' && '$(PYTHON)' "$$@" >/dev/null 2>&1; }

[ -e requirements.txt ] || fail 'no requirements.txt here: run make in the folder of the Makefile, or make -C FOLDER'
works -c '' && [ '$(VENV)/.installed' -nt requirements.txt ] && exit
rm -f '$(VENV)/.installed'
if uv=$$(command -v uv); then works -c ''; else works -m pip --version; fi || {
  [ '$(VENV)' = .venv ] || [ ! -e '$(VENV)' ] || fail '$(VENV) has no pip or no Python of $(PYTHONS): delete it'
  if [ -z "$$uv" ] && ! supported python3; then
    found=$$(version python3)
    fail "python3 is $${found:-missing}, expected one of $(PYTHONS): install it, or uv, which downloads it;" \
      "if it has another name: python3.11 -m venv $(VENV), then make setup"
  fi
  rm -rf '$(VENV)'
  if [ "$$uv" ]; then uv venv --quiet --python 3.11 '$(VENV)'; else output=$$(python3 -m venv '$(VENV)' 2>&1); fi ||
    fail "$(VENV) can't be created: is python3-venv installed?" $$output
}
echo 'installing requirements.txt into $(VENV)'
if [ "$$uv" ]; then
  uv pip install --compile-bytecode --python '$(PYTHON)' -r requirements.txt
else
  '$(PYTHON)' -m pip install -r requirements.txt
fi || fail 'the installation is incomplete: run make setup again'
touch '$(VENV)/.installed'
endef
setup: export SETUP := $(SETUP)
