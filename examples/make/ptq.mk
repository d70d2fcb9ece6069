# Quantize a folder of ONNX models with ptq, as far as they changed, and check every one of them:
#
#     make -f ptq.mk -k int8 MODELS=models CALIB=data
#
# Copy this file, and use it like this or include it. It needs GNU make 4.3 or later, and ptq on the
# PATH. The README.md beside it says what the variables mean, and what -j does to timings.

MODELS         ?= models
OUT            ?= build/int8
CALIB          ?=
EVAL           ?=
RECIPE         ?= $(firstword $(wildcard ptq.toml))
BASELINE       ?= $(wildcard baseline.json)
QUANTIZE_FLAGS ?=
CHECK_FLAGS    ?=
PTQ            ?= ptq
NAMES          ?= $(filter-out %.int8,$(patsubst $(MODELS)/%.onnx,%,$(wildcard $(MODELS)/*.onnx)))

.PHONY: int8 baseline ptq-force ptq-no-models
.SECONDEXPANSION:

ptq-made    := $(NAMES:%=$(OUT)/%.int8.onnx)
ptq-checked := $(NAMES:%=$(OUT)/.ptq/%.checked)

# ---------------------------------------------------------------- rules

int8: $(ptq-made) $(ptq-checked)

# One after the other whatever -j says, for all of them write one file.
baseline: $(ptq-made)
	$(foreach name,$(NAMES),$(ptq-line)$(call ptq-check,$(name)) \
	    --baseline $(or $(BASELINE),baseline.json) --update-baseline)

$(ptq-made): $(OUT)/%.int8.onnx: $(MODELS)/%.onnx $(OUT)/.ptq/%.quantize $$(call ptq-weights,$$*)
	@rm -f $@ $(OUT)/$*.report.json
	@$(call ptq-require,CALIB,$(call ptq-calib,$*),$*)
	$(call ptq-quantize,$*)$(ptq-threads) -o $@ --json $(OUT)/$*.report.json --force

# The mark says that the check held; what it found is written either way.
$(ptq-checked): $(OUT)/.ptq/%.checked: $(OUT)/%.int8.onnx $(OUT)/.ptq/%.check $(wildcard $(BASELINE))
	@rm -f $@
	@$(call ptq-require,EVAL,$(call ptq-eval,$*),$*)
	$(call ptq-check,$*)$(ptq-threads)$(call ptq-option,baseline,$(BASELINE)) \
	    --markdown $(OUT)/$*.check.md
	@touch $@

# What a step was asked to do. The file becomes newer than the result of the step when that is
# another command or another ptq, and when the recipe or anything in the data is newer.
$(NAMES:%=$(OUT)/.ptq/%.quantize): $(OUT)/.ptq/%.quantize: \
    $$(call ptq-changed,$$@,$$(call ptq-quantize,$$*),$$(call ptq-calib,$$*))
	@$(call ptq-write,$@,$(call ptq-quantize,$*))
$(NAMES:%=$(OUT)/.ptq/%.check): $(OUT)/.ptq/%.check: \
    $$(call ptq-changed,$$@,$$(call ptq-check,$$*),$$(call ptq-eval,$$*))
	@$(call ptq-write,$@,$(call ptq-check,$*))

ptq-force:

ifeq (,$(NAMES))
int8 baseline: ptq-no-models
ptq-no-models:
	@echo "there is no .onnx file in '$(MODELS)'; give MODELS=folder" >&2; exit 1
endif

# ---------------------------------------------------------------- commands, from a model's name

ptq-quantize = $(PTQ) quantize $(MODELS)/$1.onnx$(call ptq-option,recipe,$(RECIPE))$(call \
    ptq-option,calib-data,$(call ptq-calib,$1))$(call ptq-option,eval-data,$(if \
    $(EVAL),$(call ptq-eval,$1))) $(call ptq-named,$(QUANTIZE_FLAGS),$1)
ptq-check    = $(PTQ) check $(MODELS)/$1.onnx $(OUT)/$1.int8.onnx$(call \
    ptq-option,recipe,$(RECIPE))$(call ptq-option,data,$(call ptq-eval,$1)) $(call \
    ptq-named,$(CHECK_FLAGS),$1)
ptq-option   = $(if $2, --$1 $2)

# Jobs side by side observe with one thread each, which changes nothing in the result.
ptq-threads  = $(if $(findstring jobserver,$(MAKEFLAGS)), --threads 1)

# The data of a model: where {name} says; or of its name in the folder; or one for all.
ptq-calib    = $(call ptq-data,$(CALIB),$1)
ptq-eval     = $(call ptq-data,$(or $(EVAL),$(CALIB)),$1)
ptq-data     = $(if $(findstring {name},$1),$(call ptq-named,$1,$2),$(if $(call \
    ptq-own,$1,$(NAMES)),$(call ptq-own,$1,$2),$1))
ptq-own      = $(strip $(foreach name,$2,$(firstword $(wildcard $1/$(name).npz) $(patsubst \
    %/.,%,$(wildcard $1/$(name)/.)))))
ptq-named    = $(subst {name},$2,$1)

# Weights beside a model, as exporters call the file.
ptq-weights  = $(wildcard $(foreach end,onnx.data onnx_data data,$(MODELS)/$1.$(end)))

# ---------------------------------------------------------------- what has changed

ptq-changed  = $(if $(and $(call ptq-same,$(ptq-version) $2,$(file <$1)),$(call \
    ptq-older,$(wildcard $3 $(RECIPE)),$1)),,ptq-force)
ptq-same     = $(findstring [$(strip $1)],[$(strip $2)])
ptq-older    = $(if $(and $1,$(shell find -L $1 -newer $2 | head -n 1)),,older)
ptq-write    = $(shell mkdir -p $(dir $1))$(file >$1,$(ptq-version) $2)
ptq-version  = $(eval ptq-version := $(shell $(PTQ) --version))$(ptq-version)

# ---------------------------------------------------------------- the rest

# fails where a variable names data, but none for this model
ptq-require  = $(if $(and $($1),$(if $2,,none)),echo "there is no data for model '$3'; add \
    $($1)/$3.npz or a folder $($1)/$3 as other models have" >&2; exit 1,:)

define ptq-line


endef

# make splits names at spaces, and half of a name is no file
ifneq (,$(strip $(foreach word,$(wildcard $(MODELS)/*.onnx),$(if $(wildcard $(word)),,half))))
$(error a model in '$(MODELS)' has a space in its name, which make cannot handle; \
    rename it, or use `ptq batch`)
endif
