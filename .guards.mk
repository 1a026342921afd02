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
# only a value that the user gave is searched for a $: the defaults in the Makefile refer to other variables
given = $(if $(filter command environment,$(origin $(1))),$(value $(1)))
forbidden = $(findstring ',$(value $(1)))$(findstring $(NEWLINE),$(value $(1)))$(findstring $$,$(given))
$(foreach name,$(CHECKED),$(if $(call forbidden,$(name)),$(error $(name)=: expected no quote, $$ or newline in it)))

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

# $(call require,NAME,hint) in a recipe: end with the hint when the variable is not set
require = $(if $(value $(1)),,$(error $(1)= is missing: $(2)))
